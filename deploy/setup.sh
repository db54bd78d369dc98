#!/bin/sh
# Prepare the stack's folder and the topics; with passwords if the service `credentials` made them.
set -eu

stack=${STACK:-/stack}
secure=
if [ -e "$stack/secrets" ]; then secure=--secure; fi
exec omnimargin prepare "$stack" "$SCENARIO" \
  --bootstrap "${BOOTSTRAP:-broker:19092}" --speed "$SPEED" --lead "$LEAD_S" $secure

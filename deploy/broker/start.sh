#!/bin/bash
# Start the broker. It asks for passwords if the service `credentials` has made some (profile
# secure); else it lets in whoever reaches it: the containers beside it.
set -euo pipefail

kafka=${KAFKA_HOME:-/opt/kafka}
given=${GIVEN:-/broker}
data=${DATA:-/var/lib/kafka/data}
here=$(dirname "$0")

mode=plain
passwords=()
if [[ -e $given/scram.txt ]]; then
  mode=secure
  while read -r line; do passwords+=(--add-scram "$line"); done <"$given/scram.txt"
fi

# Each mode has data of its own, for passwords are written when storage is formatted.
settings=$(mktemp)
cat "$here/server.properties" "$here/$mode.properties" >"$settings"
echo "log.dirs=$data/$mode" >>"$settings"
"$kafka/bin/kafka-storage.sh" format --standalone --ignore-formatted \
  --cluster-id 4L6g3nShT-eMCtK--X86sw --config "$settings" "${passwords[@]}"
exec "$kafka/bin/kafka-server-start.sh" "$settings"

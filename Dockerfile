# The image of every process of the stack; docker-compose.yml says which one a container runs.

# The full image has a compiler: for 64-bit ARM one library comes without a ready-made wheel.
FROM python:3.11.15-bookworm AS build
ENV UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY requirements.lock pyproject.toml ./
# All that is installed is in the lock file, with its hash: uv, which installs the rest; what the
# program needs to run; and, for this stage only, what makes a package of our own code.
RUN awk '/^[^ ]/ {take = /^uv==/} take' requirements.lock > uv.txt \
    && pip install --no-cache-dir --require-hashes --requirement uv.txt
RUN python -m venv --without-pip /opt/omnimargin \
    && uv pip install --python /opt/omnimargin/bin/python --compile-bytecode \
       --require-hashes --constraint requirements.lock --requirement pyproject.toml
RUN uv pip install --system --require-hashes --constraint requirements.lock \
       "$(grep --only-matching '^hatchling==[^ ]*' requirements.lock)"
COPY README.md ./
COPY messaging messaging
COPY hub hub
COPY spokes spokes
COPY markets markets
COPY lab lab
RUN python -m hatchling build --target wheel \
    && uv pip install --python /opt/omnimargin/bin/python --compile-bytecode \
       --no-deps --no-index dist/*.whl

FROM python:3.11.15-slim-bookworm
RUN python -m pip uninstall --yes --root-user-action=ignore setuptools wheel pip \
    && groupadd --gid 10001 omnimargin \
    && useradd --uid 10001 --gid omnimargin --no-create-home --home-dir /stack \
       --shell /usr/sbin/nologin omnimargin \
    && install --directory --owner=omnimargin --group=omnimargin --mode=0700 /stack \
    && install --directory --owner=omnimargin --group=omnimargin --mode=0755 /broker
COPY --from=build /opt/omnimargin /opt/omnimargin
WORKDIR /app
COPY scenarios scenarios
COPY books books
ENV PATH=/opt/omnimargin/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER omnimargin
ENTRYPOINT ["omnimargin"]
CMD ["--help"]

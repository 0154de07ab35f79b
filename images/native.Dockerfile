# The system's codec libraries and a libopus with DRED and deep PLC, which no distribution has as a
# binary. Rebuilt when this file or the recipe (harness/labs/libopus.py) changes, not with the lock.
#
# BASE is any Debian 12 with Python 3.11: this image, or one that debootstrap made (harness/labs/
# image.py). Its digest is that of the index, so it serves every architecture.
ARG BASE=python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${BASE} AS libopus
LABEL codec-network-harness.stage=libopus
RUN apt-get -qq -o Acquire::http::Timeout=20 update \
 && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends \
      gcc libc6-dev make >/dev/null
COPY libopus.py /build/
RUN python3 /build/libopus.py /opt/native

FROM ${BASE}
RUN apt-get -qq -o Acquire::http::Timeout=20 update \
 && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends \
      libcodec2-1.0 libgsm1 liblc3-0 libopencore-amrwb0 libspeex1 libvo-amrwbenc0 >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY --from=libopus /opt/native /opt/native
ENV HARNESS_LIBOPUS=/opt/native/libopus.so.0

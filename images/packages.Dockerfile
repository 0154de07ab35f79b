# What the harness imports. Rebuilt when the lock changes, not when the harness does.
#
# BASE is what native.Dockerfile makes, or what that one starts from, where it could not be made.
ARG BASE

FROM ${BASE} AS packages
LABEL codec-network-harness.stage=packages
COPY pip /wheelhouse/pip
COPY wheels /wheelhouse/wheels
# pip runs from its own wheel, so that no base has to have it. What torch brings for building
# extensions and for testing itself is a fifth of the image. Compiling is to start faster: files in
# the syntax of a newer Python, which some packages carry, stay as they are.
RUN python3 "$(echo /wheelhouse/pip/*.whl)/pip" install --quiet --no-cache-dir --no-index \
      --no-deps --no-compile --root-user-action=ignore --target /opt/packages \
      /wheelhouse/wheels/*.whl \
 && rm -rf /opt/packages/torch/include /opt/packages/torch/test \
 && { python3 -m compileall -qq -j 0 /opt/packages || :; }

FROM ${BASE}
COPY --from=packages /opt/packages /opt/packages
ENV PYTHONPATH=/opt/harness:/opt/packages PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1
USER 65534:65534
WORKDIR /opt/harness
ENTRYPOINT ["python3"]

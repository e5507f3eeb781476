# Both stages start from this. Where images have to be pinned by digest: --build-arg PYTHON=python@sha256:…
ARG PYTHON=python:3.13-slim-bookworm

FROM ${PYTHON} AS build

WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes -r requirements/build.txt \
    && python -m venv /opt/zerotrust \
    && /opt/zerotrust/bin/pip install --require-hashes --only-binary :all: -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/zerotrust/bin/pip install --no-deps /wheels/*.whl \
    && /opt/zerotrust/bin/python -m pip uninstall --yes pip


FROM ${PYTHON}

COPY --from=build /opt/zerotrust /opt/zerotrust
ENV HOME=/ USER=zerotrust PATH=/opt/zerotrust/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 8080 8443
ENTRYPOINT ["zerotrust"]
CMD ["controller"]

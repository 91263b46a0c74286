# syntax=docker/dockerfile:1
# Nothing here depends on the processor: every dependency has wheels for amd64 and arm64.
ARG BASE_IMAGE=python:3.13-slim-bookworm
FROM ${BASE_IMAGE} AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY deploy/constraints.txt deploy/
COPY advisor advisor
COPY clients/python clients/python
RUN python -m venv /opt/advisor \
    && /opt/advisor/bin/pip install --no-cache-dir --only-binary=:all: --no-binary=fslr-advisor \
        --constraint deploy/constraints.txt '.[server]' \
    && /opt/advisor/bin/pip uninstall --yes pip \
    && find /opt/advisor -type d -name tests -prune -exec rm -r {} +

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="fslr-advisor" \
      org.opencontainers.image.description="Learning-rate transfer as a service" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 advisor \
    && useradd --uid 10001 --gid advisor --home-dir /nonexistent \
        --shell /usr/sbin/nologin advisor \
    && install -d -o advisor -g advisor -m 0700 /data
COPY --from=build /opt/advisor /opt/advisor
ENV PATH=/opt/advisor/bin:$PATH \
    ADVISOR_DATA_DIR=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
# All that is written, so the root file system may be read-only: /data by the embedded Redis (nothing
# with ADVISOR_REDIS_URL), /tmp (a tmpfs will do) by what needs a socket or a scratch file.
VOLUME /data
EXPOSE 50051
# With TLS it needs FSLR_TLS_CA, and ADVISOR_ADDRESS with a name that the certificate has and that
# leads to this container: docs/how-to/deploy.md.
HEALTHCHECK --interval=30s --timeout=10s --start-period=15s --retries=3 CMD ["advisor", "health"]
# Refuses to start until certificates are mounted (ADVISOR_TLS_CERT, ADVISOR_TLS_KEY), or until
# ADVISOR_ALLOW_INSECURE=true says that the network which reaches the container is trusted.
ENTRYPOINT ["advisor"]
CMD ["serve", "--host", "0.0.0.0", "--log-json"]

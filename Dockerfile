# syntax=docker/dockerfile:1
# The image builds for amd64 and arm64: every dependency has wheels for both.
ARG BASE_IMAGE=python:3.13-slim-bookworm
FROM ${BASE_IMAGE} AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY deploy/constraints.txt deploy/
COPY advisor advisor
COPY clients/python clients/python
RUN python -m venv /opt/advisor \
    && /opt/advisor/bin/pip install --no-cache-dir --only-binary=:all: --no-binary=fslr-advisor \
        --constraint deploy/constraints.txt '.[web]' \
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
# Numeric, so that Kubernetes can verify that the user is not root.
USER 10001:10001
# The root file system can be read-only. Only /data (by the embedded Redis; unused with
# ADVISOR_REDIS_URL) and /tmp (sockets and temporary files; a tmpfs is enough) are written.
VOLUME /data
EXPOSE 50051
# With TLS the health check needs FSLR_TLS_CA, and ADVISOR_ADDRESS with a name that is in the
# certificate and resolves to this container: docs/how-to/deploy.md.
HEALTHCHECK --interval=30s --timeout=10s --start-period=15s --retries=3 CMD ["advisor", "health"]
# The service refuses to start without certificates (ADVISOR_TLS_CERT, ADVISOR_TLS_KEY), unless
# ADVISOR_ALLOW_INSECURE=true declares that the network which reaches the container is trusted.
ENTRYPOINT ["advisor"]
CMD ["serve", "--host", "0.0.0.0", "--log-json"]

# syntax=docker/dockerfile:1
FROM python:3.13-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY advisor advisor
COPY clients/python clients/python
RUN python -m venv /opt/advisor \
    && /opt/advisor/bin/pip install --no-cache-dir '.[server]'

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /nonexistent advisor \
    && install -d -o advisor -g advisor -m 0700 /data
COPY --from=build /opt/advisor /opt/advisor
ENV PATH=/opt/advisor/bin:$PATH \
    ADVISOR_DATA_DIR=/data \
    PYTHONUNBUFFERED=1
USER 10001
VOLUME /data
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["advisor", "health", "--address", "127.0.0.1:50051"]
# Inside a container loopback reaches nobody. As it stands here callers are not authenticated: publish
# the port on a network that is trusted, such as `--publish 127.0.0.1:50051:50051`, or mount
# certificates and set ADVISOR_TLS_CERT, ADVISOR_TLS_KEY and ADVISOR_TLS_CLIENT_CA; the health check
# then needs FSLR_TLS_CA, FSLR_TLS_CERT and FSLR_TLS_KEY, and 127.0.0.1 in the service's certificate.
ENTRYPOINT ["advisor"]
CMD ["serve", "--host", "0.0.0.0", "--allow-insecure", "--log-json"]

# Preceptor, built in one stage and run in another that has no compiler, no npm and no root.
#   docker build -t preceptor .                       CPU (amd64, arm64)
#   docker build -t preceptor:cuda --build-arg CUDA=12 .   NVIDIA GPUs (amd64), CUDA 12 and cuDNN 9 included
# ONNX Runtime's binaries need glibc ≥ 2.28: Debian and Ubuntu images, not Alpine.
ARG CUDA=none

FROM node:24-bookworm-slim AS build
ARG CUDA
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN npm run build && npm prune --omit=dev
# onnxruntime-node brings every platform's binaries (250 MB); one is used.
RUN set -eu; \
    cd node_modules/onnxruntime-node/bin/napi-v6; \
    arch="$(node -p process.arch)"; \
    test -d "linux/$arch"; \
    rm -rf darwin win32; \
    for directory in linux/*; do \
      if [ "$directory" != "linux/$arch" ]; then rm -rf "$directory"; fi; \
    done
# The CUDA provider is too large for npm; ONNX Runtime's own script fetches the matching version.
RUN case "$CUDA" in \
      none) ;; \
      12) npm run install:cuda ;; \
      *) echo "CUDA must be none or 12, not $CUDA" >&2; exit 1 ;; \
    esac

FROM node:24-bookworm-slim AS runtime-none

FROM nvidia/cuda:12.6.3-cudnn-runtime-ubuntu22.04 AS runtime-12
COPY --from=node:24-bookworm-slim /usr/local/bin/node /usr/local/bin/node

# hadolint ignore=DL3006
FROM runtime-${CUDA}
LABEL org.opencontainers.image.title="Preceptor" \
      org.opencontainers.image.description="An HTTP server for Reinforcement-Learned Teachers" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /app
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
COPY package.json LICENSE README.md ./
COPY migrations ./migrations
COPY openapi ./openapi
# Listening beyond loopback needs a key: without PRECEPTOR_API_KEY (or PRECEPTOR_API_KEY_FILE) the server says so and stops.
ENV NODE_ENV=production \
    HOME=/data \
    PRECEPTOR_HOST=0.0.0.0 \
    PRECEPTOR_PORT=8080 \
    PRECEPTOR_DATA_DIR=/data \
    PRECEPTOR_MODELS_DIRS=/data/models:/models
RUN mkdir -p /data /models && chown 1000:1000 /data /models
USER 1000:1000
VOLUME /data
EXPOSE 8080
# A first start creates the embedded database (seconds); /healthz answers while models load.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PRECEPTOR_PORT}/healthz`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# Exec form: node is process 1 and receives SIGTERM itself, drains, and exits 0.
ENTRYPOINT ["node", "dist/main.js"]
CMD ["serve"]

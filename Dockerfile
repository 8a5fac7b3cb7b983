# The program itself, as a small image. It runs as a user without rights.
#   docker build -t orchestrator .
#   docker run --rm -v "$PWD:/project" orchestrator validate pipeline.yaml
ARG RUST=rust:1-bookworm
ARG BASE=debian:bookworm-slim

FROM ${RUST} AS build
WORKDIR /source
COPY . .
# The manifest names test targets; cargo wants the files to be there even where they are not built.
RUN mkdir -p tests && touch tests/main.rs \
 && cargo build --release --locked --bin orchestrator

FROM ${BASE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates openssh-client \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home --home-dir /var/lib/orchestrator --shell /usr/sbin/nologin orchestrator \
 && mkdir /project
COPY --from=build /source/target/release/orchestrator /usr/local/bin/orchestrator
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/orchestrator/
# History, logs and artifacts lie below the home folder; mount a volume there to keep them.
ENV XDG_DATA_HOME=/var/lib/orchestrator
# Of memory that is free again glibc keeps a share for each thread; these few threads need two.
ENV MALLOC_ARENA_MAX=2
VOLUME /var/lib/orchestrator
USER orchestrator
WORKDIR /project
ENTRYPOINT ["orchestrator"]
CMD ["--help"]

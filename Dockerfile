# The image of every Pavise component: the program `pavise`, the libraries it is linked with, and nothing else.
#
#   docker build -t pavise:0.1.0 .

FROM docker.io/library/rust:1.95-slim-bookworm AS build
# What seccomp profiles are compiled with.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libseccomp-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY profiles profiles
COPY agent agent
# Members of the workspace that are not built here; cargo wants to see them nevertheless.
COPY tests tests
COPY xtask xtask
# Cargo tells by their times whether sources have changed, and the cache may be from another checkout with newer ones.
RUN --mount=type=cache,id=pavise-target,sharing=locked,target=/src/target \
    find profiles agent -type f -exec touch {} + \
 && cargo build --release --locked --package pavise \
 && install -D target/release/pavise /image/usr/bin/pavise
# What the dynamic linker loads, at the paths where it looks for it.
RUN ldd /image/usr/bin/pavise | grep -o '/[^ ]*' | sort -u | xargs cp --dereference --parents --target-directory=/image

FROM scratch
COPY --from=build /image /
ENTRYPOINT ["/usr/bin/pavise"]

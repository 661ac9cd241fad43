# The image of every Pavise component: the program `pavise`, AppArmor's parser and what texts can include, the
# libraries of both programs, and nothing else.
#
#   docker build -t pavise:0.1.0 .

FROM docker.io/library/rust:1.95-slim-bookworm AS build
# What seccomp profiles and AppArmor texts are compiled with. Another AppArmor is a decision, not an update: it
# compiles all texts of all nodes anew, and may have other abstractions. (docs/apparmor.md names the version.)
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libseccomp-dev 'apparmor=3.0.8-*' \
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
# The parser, and of its files what texts can include. `local` is for what a machine's owner adds: nothing here.
RUN install -D --target-directory=/image/usr/sbin /usr/sbin/apparmor_parser \
 && mkdir -p /image/etc/apparmor.d/local \
 && cp --recursive --dereference /etc/apparmor.d/abi /etc/apparmor.d/abstractions /etc/apparmor.d/tunables \
    /image/etc/apparmor.d
# What the dynamic linker loads, at the paths where it looks for it.
RUN ldd /image/usr/bin/pavise /image/usr/sbin/apparmor_parser | grep -o '/[^ :]*' | grep -v '^/image/' | sort -u \
    | xargs cp --dereference --parents --target-directory=/image

FROM scratch
COPY --from=build /image /
ENTRYPOINT ["/usr/bin/pavise"]

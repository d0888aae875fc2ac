# The gateway alone on a base without shell or package manager: docker build --tag tidegate .
# How to run it, read-only and with io_uring: docs/containers.md.
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --package tidegate --bin tidegate

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /source/target/release/tidegate /usr/bin/tidegate
COPY --from=build /source/LICENSE /usr/share/doc/tidegate/LICENSE
USER 65532:65532
EXPOSE 4000 4001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/bin/tidegate", "healthcheck", "-c", "/etc/tidegate/tidegate.yaml"]
ENTRYPOINT ["/usr/bin/tidegate"]
CMD ["serve", "-c", "/etc/tidegate/tidegate.yaml"]

# The tasks of this repository. `just` is a convenience: every recipe is one or two lines that work without it, and
# .ci/run runs the same commands.

# List the recipes.
default:
    @just --list

# Start the shipped configuration in the foreground.
run *ARGS:
    cargo run --release -- system start --config config {{ARGS}}

# See it work: plugins, a killed plugin, a restarted actor, a killed gateway.
demo:
    cargo run --release -- system demo

# All tests of all layers and of the binary.
test *ARGS:
    cargo test --locked {{ARGS}}

# Format the code.
fmt:
    cargo fmt --all

# Formatting, lints with and without the test features, layers, dependencies.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo clippy --workspace --bins --lib --locked -- -D warnings
    python3 scripts/check_dependencies.py

# The documentation of the crates; broken links in it are errors.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# What the gateway costs above a bare loop; minutes.
bench *ARGS:
    cargo build --release && cargo run --release -p ductile-bench -- {{ARGS}}

# Feed mutated inputs to one reader: condition, template, baggage; stops at the first finding and writes it out.
fuzz TARGET="condition" *ARGS:
    cargo run -p ductile-fuzz -- {{TARGET}} {{ARGS}}

# Everything that a change has to pass.
ci:
    .ci/run

//! Compiles the shipped configuration and plugins in again when a file is added to them.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../../config");
    println!("cargo:rerun-if-changed=../../plugins");
}

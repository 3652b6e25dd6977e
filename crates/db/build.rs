//! Rebuilds the crate when a migration is added: they are embedded, and a new file is noticed by nobody else.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}

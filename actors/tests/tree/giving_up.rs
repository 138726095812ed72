//! giving up

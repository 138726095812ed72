//! ductile-cli

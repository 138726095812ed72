//! ductile-config

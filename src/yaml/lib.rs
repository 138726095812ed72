//! ductile-yaml

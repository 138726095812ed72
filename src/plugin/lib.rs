//! ductile-plugin

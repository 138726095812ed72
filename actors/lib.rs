//! ductile-actors

//! ductile-otp

//! Callers by their certificates, as OpenSSL makes them: whom the door lets in, as whom, and what is said of the others.

mod made;
mod matrix;
mod rotation;
mod tokens;

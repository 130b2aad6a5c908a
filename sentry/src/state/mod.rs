//! Records of kernel objects, and what must differ between clones.

//! The task loop: run guest code, handle what stopped it, wait where a call says so.

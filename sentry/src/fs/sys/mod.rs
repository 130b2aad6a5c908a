//! sysfs: the few files that runtimes read to learn about processors, memory and cgroups.

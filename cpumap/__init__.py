"""cpumap: libvirt CPU definitions, translated into explicit QEMU CPUs that hold."""

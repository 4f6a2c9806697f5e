"""QEMU's words: QMP, options and warnings, read and written. Nothing here knows libvirt."""

"""libvirt's words: domain XML, `<cpu>`, CPU maps, and libvirt's own rules. Nothing here asks a
QEMU.
"""

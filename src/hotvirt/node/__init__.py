"""The node agent: turns the VirtualMachineInstances of its node into QEMU processes."""

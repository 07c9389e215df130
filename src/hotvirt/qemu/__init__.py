"""One QEMU process: command line, QMP, guest agent, hotplug. Knows nothing of Kubernetes."""

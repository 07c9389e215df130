"""Words and reasons for the fields of data volumes and what belongs to them, see `explain` and `support`."""
# ruff: noqa: E501 (a sentence a line)

_SOURCE = {
    "blank": "Nothing: a blank disk.",
    "http": "An image of a web server.",
    "registry": "The disk of a container image.",
    "pvc": "A copy of another claim. One of another namespace needs leave to create datavolumes/source there.",
    "snapshot": "A copy of what a VolumeSnapshot holds.",
    "upload": "What is uploaded to it, see hotvirt image-upload.",
}
_HTTP = {
    "url": "Where the image is, http or https.",
    "secretRef": "Secret with accessKeyId and secretKey, the user and password that the server asks for.",
    "certConfigMap": "ConfigMap with certificates (PEM) of authorities that the server's certificate may come from.",
    "extraHeaders": "Headers to send along, each as NAME: VALUE.",
    "secretExtraHeaders": "Secrets whose values are headers to send along.",
}
_SPEC = {
    "source": "What is to be in it.",
    "sourceRef": "A DataSource that says what is to be in it.",
    "pvc": "The claim, as Kubernetes has it.",
    "storage": "The claim, where what is left open is filled in from the storage profile and the source.",
    "contentType": "kubevirt, the default: a disk image.",
}

WORDS = {
    "Volume.dataVolume": "The claim of a DataVolume. The guest waits until it is filled.",
    "DataVolumeSource.name": "Name of the DataVolume, which is its claim's too.",
    "DataVolumeSource.hotpluggable": "The volume may be added and removed while the guest runs.",
    "VirtualMachineSpec.dataVolumeTemplates": "DataVolumes that are made with the machine, and go with it.",
    "DataVolumeTemplateSpec.metadata": "Name, labels and annotations of the DataVolume.",
    "DataVolumeTemplateSpec.spec": "The DataVolume's spec.",
    **{f"{of}.{field}": words for of in ("cdi.DataVolumeSpec", "DataVolumeSpec") for field, words in _SPEC.items()},
    **{f"{of}.{field}": words for of in ("cdi.DataVolumeSource", "ImportSource") for field, words in _SOURCE.items()},
    **{
        f"{of}.{field}": words
        for of in ("cdi.DataVolumeSourceHTTP", "ImportSourceHTTP")
        for field, words in _HTTP.items()
    },
    "ImportSourceHTTP.checksum": "What the file must hash to, as sha256:HEX (also sha512, sha384, sha1, md5).",
    "cdi.DataVolumeSourceRegistry.url": "docker:// and the image's name.",
    "cdi.DataVolumeSourceRegistry.secretRef": "Secret (kubernetes.io/dockerconfigjson, or accessKeyId and secretKey) for the registry.",
    "cdi.DataVolumeSourceRegistry.certConfigMap": "ConfigMap with certificates (PEM) of authorities that the registry's certificate may come from.",
    "cdi.DataVolumeSourcePVC.name": "Name of the claim.",
    "cdi.DataVolumeSourcePVC.namespace": "Its namespace.",
    "cdi.DataVolumeSourceSnapshot.name": "Name of the VolumeSnapshot.",
    "cdi.DataVolumeSourceSnapshot.namespace": "Its namespace.",
    "cdi.DataVolumeSourceRef.kind": "DataSource.",
    "cdi.DataVolumeSourceRef.name": "Name of the DataSource.",
    "cdi.DataVolumeSourceRef.namespace": "Its namespace, by default that of the data volume.",
    "DataVolume.spec": "The claim, and what is to be in it.",
    "DataVolume.status": "How far it is.",
    "DataVolumeStatus.phase": "Pending, WaitForFirstConsumer, ImportScheduled, ImportInProgress, CloneInProgress, UploadReady, Succeeded and so on.",
    "DataVolumeStatus.progress": "How much is there, in percent.",
    "DataVolumeStatus.restartCount": "How often it was begun anew after a failure.",
    "DataVolumeStatus.claimName": "The claim.",
    "DataVolumeStatus.conditions": "Bound: the claim has its volume. Running: something is being copied. Ready: it can be used.",
    "DataSource.spec": "What it stands for.",
    "DataSource.status": "Whether that is there.",
    "StorageProfile.spec": "What claims get, in place of what is known of the storage class.",
    "StorageProfile.status": "What claims get.",
    "CDI.spec": "Settings.",
    "CDI.status": "Deployed, in a home.",
    "CDIConfig.spec": "Settings.",
    "CDIConfig.status": "What holds, such as where images are uploaded to.",
    "VolumeImportSource.spec": "Where the image is.",
    "VolumeUploadSource.spec": "What is uploaded.",
    "VolumeCloneSource.spec": "What is copied.",
}

NO_EFFECT = {
    f"{of}.{field}": reason
    for of in ("cdi.DataVolumeSpec", "DataVolumeSpec")
    for field, reason in (
        ("preallocation", "disks here are sparse"),
        ("priorityClassName", "no pods are needed to fill a data volume"),
    )
} | {
    "DataVolumeTemplateSpec.apiVersion": "cdi.kubevirt.io/v1beta1 is meant",
    "DataVolumeTemplateSpec.kind": "DataVolume is meant",
    "cdi.DataVolumeSourceRegistry.pullMethod": "images are pulled by the node in any case",
    "cdi.DataVolumeSourceRegistry.platform": "the image for amd64 is taken",
}

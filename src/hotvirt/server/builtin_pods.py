"""The shape of pods and of what workloads make them from, in the notation of `builtin_notation`.

Fields are Kubernetes' (API reference 1.36, later ones included); the sentences are ours. What nothing here acts on is
`any`: kept as it is.
"""

SELECTOR = """
matchLabels map Labels that must be there with these values.
matchExpressions obj[] Terms that must all hold.
  key str! The label.
  operator str! In, NotIn, Exists or DoesNotExist.
  values str[] Values for In and NotIn.
"""

CONDITION = """
type str! What the condition speaks of.
status str! True, False or Unknown.
lastTransitionTime time When the status last changed.
reason str One word why.
message str A sentence why.
"""

FULL_CONDITION = """
*condition
observedGeneration long The generation it was found at.
"""

REFERENCE = """
apiVersion str API version of the object.
kind str Kind of the object.
namespace str Namespace of the object.
name str Name of the object.
uid str UID of the object.
resourceVersion str Version of the object.
fieldPath str Part of the object.
"""

RESOURCES = """
requests quantities What is set aside.
limits quantities What may at most be used.
claims obj[name] Devices claimed for the pod that are used.
  name str! The claim, as named in the pod.
  request str One request of the claim; all when absent.
"""

CONTAINER = """
name str! Name, unique in the pod.
image str Image to run.
imagePullPolicy str Always, IfNotPresent or Never.
command str[] Program and first arguments, in place of the image's.
args str[] Arguments.
workingDir str Directory to start in.
ports obj[containerPort,protocol] Ports it listens on, for information.
  containerPort int! The port.
  protocol str=TCP TCP, UDP or SCTP.
  name str Name to refer to the port by.
  hostPort int Port of the node that leads here.
  hostIP str Address of the node that leads here.
env obj[name] Environment.
  name str! Name of the variable.
  value str Its text.
  valueFrom any Where its text comes from.
envFrom any[] Secrets and config maps whose entries become variables.
resources obj Processor and memory.
  *resources
resizePolicy any[] Which resources change with or without a restart.
restartPolicy str Always makes an init container run beside the others.
restartPolicyRules any[] Restarts by exit code.
volumeMounts obj[mountPath] Volumes as directories.
  name str! The volume.
  mountPath str! Where it appears.
  subPath str Part of the volume.
  subPathExpr str Part of the volume, with variables.
  readOnly bool Whether writing is refused.
  recursiveReadOnly str Whether mounts below are read-only too.
  mountPropagation str Whether mounts made later are seen.
  bindMountOptions str[] Options of the mount.
volumeDevices obj[devicePath] Volumes as block devices.
  name str! The volume.
  devicePath str! Where the device appears.
livenessProbe any Restarts the container when it fails.
readinessProbe any Takes the container out of services when it fails.
startupProbe any Holds the other probes back until it succeeds.
lifecycle any What runs after the start and before the stop.
securityContext any User, capabilities and confinement.
stdin bool Whether it gets an input stream.
stdinOnce bool Whether the input ends with the first client.
tty bool Whether it gets a terminal.
terminationMessagePath str File whose text explains its end.
terminationMessagePolicy str File or FallbackToLogsOnError.
"""

POD_SPEC = """
containers obj[name]! What runs.
  *container
initContainers obj[name] What runs before, one after another.
  *container
ephemeralContainers obj[name] What was added to look inside.
  *container
  targetContainerName str Container whose processes it sees.
volumes open[name] Storage for the containers: a name and one source.
  name str! Name that mounts refer to.
  persistentVolumeClaim obj Storage of a claim in the same namespace.
    claimName str! The claim.
    readOnly bool Whether mounts are read-only.
  emptyDir obj A directory that lives as long as the pod.
    medium str Memory, or the node's disk.
    mode int Permissions of the directory.
    sizeLimit quantity At most this much.
nodeName str Node it runs on; set by the scheduler.
nodeSelector atomicmap Labels its node must have.
affinity any Wishes and demands on nodes and on other pods near by.
tolerations obj[] Taints that do not keep it away.
  key str The taint.
  operator str Exists or Equal.
  value str Value of the taint.
  effect str NoSchedule, PreferNoSchedule or NoExecute.
  tolerationSeconds long How long it stays on a node so tainted.
topologySpreadConstraints obj[topologyKey,whenUnsatisfiable] How evenly pods are spread.
  maxSkew int! The unevenness allowed.
  topologyKey str! Node label that makes a domain.
  whenUnsatisfiable str! DoNotSchedule or ScheduleAnyway.
  labelSelector obj Pods that count.
    *selector
  matchLabelKeys str[] Labels of the pod that narrow the selector.
  minDomains int Fewest domains.
  nodeAffinityPolicy str Whether affinity decides which nodes count.
  nodeTaintsPolicy str Whether taints decide which nodes count.
schedulerName str Scheduler in charge.
schedulingGates obj[name] Reasons not to schedule it yet.
  name str! The gate.
schedulingGroup any The group of pods it is scheduled with.
priority int Importance as a number.
priorityClassName str Importance by name.
preemptionPolicy str Whether it may displace others.
restartPolicy str Always, OnFailure or Never.
terminationGracePeriodSeconds long Seconds to end in order.
activeDeadlineSeconds long Seconds it may run.
serviceAccountName str Account it acts as.
serviceAccount str The same, an old name.
automountServiceAccountToken bool Whether the account's token is mounted.
hostname str Host name inside.
hostnameOverride str Host name inside, exactly.
subdomain str Domain of the host name.
setHostnameAsFQDN bool Whether the host name is the full one.
hostNetwork bool Whether it shares the node's network.
hostPID bool Whether it sees the node's processes.
hostIPC bool Whether it shares the node's IPC.
hostUsers bool Whether it shares the node's user numbers.
shareProcessNamespace bool Whether containers see each other's processes.
hostAliases obj[ip] Entries for the hosts file.
  ip str! The address.
  hostnames str[] Its names.
dnsPolicy str Whose resolver it uses.
dnsConfig any Resolver settings.
enableServiceLinks bool Whether services become variables.
imagePullSecrets obj[name] Credentials for registries.
  name str A secret in the same namespace.
securityContext any User and confinement of all containers.
resources obj Processor and memory of the whole pod.
  *resources
resourceClaims open[name] Devices claimed.
  name str! Name for use in the pod.
readinessGates obj[] Conditions that must hold besides the containers' readiness.
  conditionType str! The condition.
overhead quantities What running it costs beyond its containers.
runtimeClassName str Runtime to run it with.
os any Operating system it needs.
evictionResponders any[] Who answers when it is asked to leave.
"""

_STATUSES = """
name str! The container.
ready bool Whether it is ready.
started bool Whether it has started.
restartCount int How often it was started again.
image str Image that runs.
imageID str The image exactly.
containerID str The container in its runtime.
state any What it does now.
lastState any How it ended last.
allocatedResources quantities What is set aside for it.
allocatedResourcesStatus any[] Health of its devices.
resources any What it really has.
stopSignal str Signal that stops it.
user any User it runs as.
volumeMounts any[] Its mounts.
"""

POD_STATUS = """
phase str Pending, Running, Succeeded, Failed or Unknown.
conditions obj[type] Steps of its life.
  *podcondition
reason str One word on its state.
message str A sentence on its state.
hostIP str Address of its node.
hostIPs obj[] Addresses of its node.
  ip str! An address.
podIP str Its address.
podIPs obj[ip] Its addresses.
  ip str! An address.
startTime time When its node took it over.
qosClass str Guaranteed, Burstable or BestEffort.
nominatedNodeName str Node being cleared for it.
observedGeneration long Generation the status is about.
resize str State of a change of its resources.
resources any What it really has.
allocatedResources quantities What is set aside for it.
containerStatuses obj[] State of each container.
  *statuses
initContainerStatuses obj[] State of each init container.
  *statuses
ephemeralContainerStatuses obj[] State of each ephemeral container.
  *statuses
resourceClaimStatuses open[name] State of its claimed devices.
  name str! The claim in the pod.
extendedResourceClaimStatus any State of devices asked for as resources.
nodeAllocatableResourceClaimStatuses any[] Node resources behind its devices.
volumeHealth any[] Health of its volumes.
"""

PARTS = {
    "selector": SELECTOR,
    "condition": CONDITION,
    "fullcondition": FULL_CONDITION,
    "podcondition": "*fullcondition\nlastProbeTime time When it was last looked at.",
    "reference": REFERENCE,
    "resources": RESOURCES,
    "container": CONTAINER,
    "podspec": POD_SPEC,
    "statuses": _STATUSES,
}

TEXT = f"""
Pod obj Containers that run together on one node.
  spec obj What should run.
{"".join("    " + line + chr(10) for line in POD_SPEC.strip().splitlines())}  status obj What is.
{"".join("    " + line + chr(10) for line in POD_STATUS.strip().splitlines())}
PodTemplate obj A pod to make more of.
  template open The pod.
    spec obj What should run.
      *podspec
"""

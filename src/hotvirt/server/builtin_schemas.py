"""Schemas of the built-in kinds: what clients are told of them, and which of their lists server-side apply looks into.

Complete for what hotvirt and its users' manifests act on; of other kinds the top level is known and what is below is
kept as it is. Compiled on first use.
"""

from functools import cache
from typing import Any

from hotvirt.server import builtin_pods
from hotvirt.server.builtin_notation import read
from hotvirt.server.crd_shape import CRD_SCHEMA
from hotvirt.server.schema import Schema, compile_schema

_CORE = """
Namespace obj A space for names.
  spec obj What is wanted of it.
    finalizers str[] Who must agree before it goes.
  status obj What is.
    phase str Active or Terminating.
    conditions obj[type] What holds its end up.
      *condition
Node obj A machine that runs pods.
  spec obj What is wanted of it.
    unschedulable bool Whether new pods stay away.
    taints obj[] What keeps pods away that do not tolerate it.
      key str! Name of the taint.
      value str Its value.
      effect str! NoSchedule, PreferNoSchedule or NoExecute.
      timeAdded time Since when.
    podCIDR str Addresses for its pods.
    podCIDRs str{} Addresses for its pods, one a family.
    providerID str Its name at the provider.
    externalID str No longer used.
    configSource any No longer used.
    podPreemptionPolicy any How its pods may be displaced.
  status obj What is.
    phase str No longer used.
    conditions obj[type] Its health.
      lastHeartbeatTime time When it last reported.
      *condition
    addresses obj[type] How to reach it.
      type str! Hostname, InternalIP, ExternalIP, InternalDNS or ExternalDNS.
      address str! The address.
    capacity quantities What it has.
    allocatable quantities What pods may have of it.
    nodeInfo open What it is.
      architecture str Processor architecture.
      kernelVersion str Kernel.
      osImage str Operating system.
      kubeletVersion str Version of its agent.
      containerRuntimeVersion str Version of its container runtime.
    images any[] Images it holds.
    volumesAttached any[] Volumes attached to it.
    volumesInUse str[] Volumes in use on it.
    daemonEndpoints any Ports of its agents.
    config any No longer used.
    declaredFeatures str[] Features it declares.
    features any What its runtime can do.
    runtimeHandlers any[] Runtimes it offers.
PersistentVolumeClaim obj A demand for storage.
  spec obj What is wanted.
    accessModes str[] ReadWriteOnce, ReadOnlyMany, ReadWriteMany or ReadWriteOncePod.
    resources obj How much.
      requests quantities At least this much, under `storage`.
      limits quantities At most this much.
    storageClassName str Class to take it from; the default one when absent.
    volumeName str Volume it is bound to.
    volumeMode str Filesystem or Block.
    selector obj Volumes to choose from.
      *selector
    dataSource any What to fill it with.
    dataSourceRef any What to fill it with, any kind.
    volumeAttributesClassName str Class of changeable properties.
  status obj What is.
    phase str Pending, Bound or Lost.
    accessModes str[] How it can be mounted.
    capacity quantities What it has.
    conditions obj[type] Changes under way.
      lastProbeTime time When it was last looked at.
      *condition
    allocatedResources quantities What is set aside.
    allocatedResourceStatuses map State of changes.
    currentVolumeAttributesClassName str Class in force.
    modifyVolumeStatus any State of a change of class.
    healthStatus any Health of the volume.
PersistentVolume obj A piece of storage.
  spec open What it is.
    capacity quantities Its size, under `storage`.
    accessModes str[] How it can be mounted.
    persistentVolumeReclaimPolicy str Retain, Delete or Recycle.
    storageClassName str Class it belongs to.
    volumeMode str Filesystem or Block.
    mountOptions str[] Options of mounts.
    claimRef atomic Claim it is bound to.
      *reference
    local obj A directory or device of one node.
      path str! Where it is on the node.
      fsType str Filesystem to make on a device.
    nodeAffinity any Nodes it can be reached from.
    volumeAttributesClassName str Class of changeable properties.
  status obj What is.
    phase str Available, Bound, Released or Failed.
    reason str One word why it failed.
    message str A sentence why.
    lastPhaseTransitionTime time When the phase changed.
Secret obj Confidential data.
  type str What kind of secret it is.
  data bytesmap? The data, coded in base64.
  stringData map? The data as plain text; write only.
  immutable bool Whether it is fixed for good.
ConfigMap obj Settings for programs.
  data map? Texts by name.
  binaryData bytesmap? Bytes by name, coded in base64.
  immutable bool Whether it is fixed for good.
ServiceAccount obj An identity for programs.
  secrets obj[name] Secrets its pods may use.
    *reference
  imagePullSecrets obj[] Credentials for registries.
    name str A secret in the same namespace.
  automountServiceAccountToken bool Whether pods get its token.
Service obj One address for a set of pods.
  spec obj What is wanted.
    type str ClusterIP, NodePort, LoadBalancer or ExternalName.
    selector atomicmap Labels of the pods behind it.
    ports obj[port,protocol] Ports it offers.
      name str Name of the port.
      port int! Port of the service.
      protocol str=TCP TCP, UDP or SCTP.
      targetPort intstr Port of the pods, by number or name.
      nodePort int Port on every node.
      appProtocol str Protocol spoken.
    clusterIP str Its address; None for none.
    clusterIPs str[] Its addresses.
    externalIPs str[] Other addresses that lead here.
    externalName str Name it stands for.
    externalTrafficPolicy str Cluster or Local.
    internalTrafficPolicy str Cluster or Local.
    healthCheckNodePort int Port for a balancer's checks.
    ipFamilies str[] IPv4, IPv6.
    ipFamilyPolicy str One family or two.
    allocateLoadBalancerNodePorts bool Whether a balancer needs node ports.
    loadBalancerClass str Balancer in charge.
    loadBalancerIP str Address wished for.
    loadBalancerSourceRanges str[] Who may come in.
    publishNotReadyAddresses bool Whether pods count before they are ready.
    sessionAffinity str None or ClientIP.
    sessionAffinityConfig any How long a client stays with a pod.
    trafficDistribution str Which pods are preferred.
  status obj What is.
    loadBalancer any Addresses of the balancer.
    conditions obj[type] States.
      *fullcondition
Endpoints obj Addresses behind a service.
  subsets any[] Addresses and ports.
Event obj Something that happened.
  involvedObject atomic What it happened to.
    *reference
  related atomic Another object it concerns.
    *reference
  type str Normal or Warning.
  reason str One word.
  message str A sentence.
  action str What was done.
  count int How often it happened.
  firstTimestamp time When first.
  lastTimestamp time When last.
  eventTime time When, exactly.
  series obj Repetitions.
    count int How many.
    lastObservedTime time When last.
  source obj Who reported it.
    component str The program.
    host str Where it runs.
  reportingComponent str The program that reported it.
  reportingInstance str Which instance of it.
ResourceQuota obj Limits for a namespace.
  spec obj The limits.
    hard quantities Most of each resource.
    scopes str[] Objects that count.
    scopeSelector any Objects that count.
  status obj What is used.
    hard quantities Limits in force.
    used quantities Use.
LimitRange obj Limits and defaults for single objects.
  spec obj The limits.
    limits obj[] One for each type.
      type str! Container, Pod or PersistentVolumeClaim.
      default quantities Limits given to who asks none.
      defaultRequest quantities Requests given to who asks none.
      min quantities Least.
      max quantities Most.
      maxLimitRequestRatio quantities Most that a limit may exceed a request.
ReplicationController obj Keeps a number of pods running; an old form.
  spec any What is wanted.
  status any What is.
"""

_WORKLOADS = "".join(
    f"""
{kind} obj {about}
  spec open What is wanted.
{"" if kind in ("DaemonSet", "Job") else "    replicas int How many pods."}
    selector atomic Pods it counts as its own.
      *selector
    template open The pod to make.
      spec obj What should run.
        *podspec
  status open What is.
    conditions open[type] States.
      type str! What it speaks of.
"""
    for kind, about in (
        ("Deployment", "Keeps pods running and replaces them step by step."),
        ("ReplicaSet", "Keeps a number of pods running."),
        ("StatefulSet", "Keeps pods with names and storage of their own running."),
        ("DaemonSet", "Runs a pod on every node."),
        ("Job", "Runs pods until they are done."),
    )
)

_APPS = (
    _WORKLOADS
    + """
ControllerRevision obj A state of an object, kept to compare or return to.
  revision long! Its number.
  data any The state.
CronJob obj Makes jobs at set times.
  spec any What is wanted.
  status any What is.
"""
)

_RBAC = """
Role obj Permissions in a namespace.
  rules obj[]? What is permitted.
    *rule
ClusterRole obj Permissions everywhere, or for use in any namespace.
  rules obj[]? What is permitted.
    *rule
  aggregationRule obj Other roles it is put together from.
    clusterRoleSelectors obj[] Labels of those roles.
      *selector
RoleBinding obj Gives a role to somebody in a namespace.
  *binding
ClusterRoleBinding obj Gives a role to somebody everywhere.
  *binding
"""
_PARTS = {
    **builtin_pods.PARTS,
    "rule": """
verbs str[]! What may be done; * is everything.
apiGroups str[] Groups of the resources.
resources str[] Resources, such as pods or pods/log.
resourceNames str[] Only these objects.
nonResourceURLs str[] Paths that are no resources.
""",
    "binding": """
roleRef atomic! The role.
  apiGroup str Its group.
  kind str! Role or ClusterRole.
  name str! Its name.
subjects obj[] Who gets it.
  kind str! User, Group or ServiceAccount.
  name str! Name.
  namespace str Namespace of a service account.
  apiGroup str Group of the subject's kind.
""",
    "peer": """
podSelector atomic Pods with these labels.
  *selector
namespaceSelector atomic Pods of namespaces with these labels.
  *selector
ipBlock obj Addresses.
  cidr str! A block, such as 10.0.0.0/8.
  except str[] Blocks inside it that are left out.
""",
    "policyport": """
protocol str=TCP TCP, UDP or SCTP.
port intstr Number or name; all if absent.
endPort int Last number of a range that begins with the port.
""",
    "webhook": """
name str! Name, a domain.
clientConfig obj! How to reach it; url or service.
  url str Where it is, https.
  service obj A service of this server.
    namespace str! Its namespace.
    name str! Its name.
    path str Path of the URL.
    port int=443 Its port.
  caBundle bytes Certificates to trust, PEM.
rules obj[] Writes it is asked about.
  operations str[] CREATE, UPDATE, DELETE or *.
  apiGroups str[] Groups of the resources.
  apiVersions str[] Versions of the resources.
  resources str[] Resources, such as pods, pods/status or */*.
  scope str=* Cluster, Namespaced or *.
failurePolicy str=Fail What happens when it fails; Fail or Ignore.
matchPolicy str=Equivalent Whether rules mean other versions of a resource too; Equivalent or Exact.
namespaceSelector obj Namespaces it is asked about.
  *selector
objectSelector obj Objects it is asked about.
  *selector
sideEffects str Whether it does more than answer; None or NoneOnDryRun.
timeoutSeconds int=10 How long it may take, 1 to 30.
admissionReviewVersions str[] Versions of AdmissionReview it knows; v1 is sent.
matchConditions obj[name] Expressions that must all hold for it to be asked.
  name str! Name, unique here.
  expression str! CEL about object, oldObject and request.
""",
    "match": """
resourceRules obj[] Writes it is about.
  *matchrule
excludeResourceRules obj[] Writes it is not about, whatever resourceRules say.
  *matchrule
matchPolicy str=Equivalent Whether rules mean other versions of a resource too; Equivalent or Exact.
namespaceSelector obj Namespaces it is about.
  *selector
objectSelector obj Objects it is about.
  *selector
""",
    "matchrule": """
operations str[] CREATE, UPDATE, DELETE or *.
apiGroups str[] Groups of the resources.
apiVersions str[] Versions of the resources.
resources str[] Resources, such as pods, pods/status or */*.
resourceNames str[] Only these objects.
scope str=* Cluster, Namespaced or *.
""",
}

_OTHERS = """
Lease obj A claim that is renewed or runs out.
  spec obj The claim.
    holderIdentity str Who holds it.
    leaseDurationSeconds int Seconds until it runs out.
    acquireTime time Since when.
    renewTime time Renewed last.
    leaseTransitions int How often it changed hands.
    preferredHolder str Who should take it over.
    strategy str How the holder is chosen.
StorageClass obj A kind of storage to ask for.
  provisioner str! Who makes the volumes.
  parameters map Settings for the provisioner.
  reclaimPolicy str What becomes of a volume that is given back: Delete or Retain.
  volumeBindingMode str Immediate, or WaitForFirstConsumer.
  allowVolumeExpansion bool Whether claims may grow.
  mountOptions str[] Options of mounts.
  allowedTopologies any[] Where volumes may be.
PriorityClass obj An importance by name.
  value int! The number; more is more important.
  globalDefault bool Whether pods without a class get it.
  description str When to use it.
  preemptionPolicy str Whether such pods displace others.
PodDisruptionBudget obj How many pods of a set may be away.
  spec obj The budget.
    minAvailable intstr Fewest that stay.
    maxUnavailable intstr Most that are away.
    selector atomic The pods.
      *selector
    unhealthyPodEvictionPolicy str Whether pods that are not ready may always go.
  status obj What is.
    conditions obj[type] States.
      *fullcondition
    currentHealthy int Pods that are well.
    desiredHealthy int Pods that must be well.
    disruptionsAllowed int Pods that may go now.
    expectedPods int Pods in all.
    observedGeneration long Generation the status is about.
    disruptedPods map Pods on their way.
NetworkPolicy obj Which connections pods take and make.
  spec obj The policy.
    podSelector atomic The pods it is about.
      *selector
    policyTypes str[] Ingress, Egress, or both.
    ingress obj[] What these pods take.
      from obj[] From whom; everybody if absent.
        *peer
      ports obj[] At which ports; all if absent.
        *policyport
    egress obj[] What these pods make.
      to obj[] To whom; everybody if absent.
        *peer
      ports obj[] To which ports; all if absent.
        *policyport
EndpointSlice obj Addresses behind a service.
  addressType str! IPv4, IPv6 or FQDN.
  endpoints any[] The addresses.
  ports any[] The ports.
ValidatingWebhookConfiguration obj Who is asked before a write.
  webhooks obj[name] Those asked.
    *webhook
MutatingWebhookConfiguration obj Who may change what is written.
  webhooks obj[name] Those asked.
    *webhook
    reinvocationPolicy str=Never Never, or IfNeeded: asked again when others changed the object since.
ValidatingAdmissionPolicy obj Expressions that writes must satisfy, once it is bound.
  spec obj! What it demands.
    failurePolicy str=Fail What happens when an expression can't be evaluated; Fail or Ignore.
    paramKind obj Kind of the objects that bindings give the expressions as params.
      apiVersion str Group and version.
      kind str Name of the kind.
    matchConstraints obj Writes it is about.
      *match
    matchConditions obj[name] Expressions that must all hold for it to be asked.
      name str! Name, unique here.
      expression str! CEL.
    variables obj[name] Values that later expressions read as variables.name.
      name str! Name, an identifier.
      expression str! CEL; it may read the variables before it.
    validations obj[] What must hold.
      expression str! CEL about object, oldObject, request, params, namespaceObject and variables.
      message str What is said when it does not hold.
      messageExpression str CEL for the message.
      reason str Reason of the answer; Unauthorized, Forbidden, Invalid or RequestEntityTooLarge.
    auditAnnotations obj[] Notes for an audit log, which this server does not keep.
      key str! Name of the note.
      valueExpression str! CEL for its text, or null for none.
  status obj What is.
    observedGeneration long Generation the status is about.
    typeChecking obj What type checks found.
      expressionWarnings any[] Warnings; here faults are refused instead.
    conditions obj[type] States.
      *fullcondition
ValidatingAdmissionPolicyBinding obj Puts a policy into force.
  spec obj! How.
    policyName str The policy.
    paramRef atomic The params for it.
      name str Name of one object.
      namespace str Its namespace; that of the write when absent.
      selector obj Labels of several objects, each of which is asked about.
        *selector
      parameterNotFoundAction str What happens without any; Allow or Deny.
    matchResources obj Writes it is about, among those of the policy.
      *match
    validationActions str{} What becomes of a fault; Deny, Warn or Audit.
"""

_EVENT = """
Event obj Something that happened.
  regarding atomic What it happened to.
    *reference
  related atomic Another object it concerns.
    *reference
  type str Normal or Warning.
  reason str One word.
  note str A sentence.
  action str What was done.
  eventTime time When.
  series obj Repetitions.
    count int How many.
    lastObservedTime time When last.
  reportingController str The program that reported it.
  reportingInstance str Which instance of it.
  deprecatedCount int How often it happened.
  deprecatedFirstTimestamp time When first.
  deprecatedLastTimestamp time When last.
  deprecatedSource any Who reported it.
"""

_HEAD = {
    "apiVersion": {"type": "string", "description": "Group and version of the kind."},
    "kind": {"type": "string", "description": "Name of the kind."},
    "metadata": {"type": "object", "description": "Name, labels and bookkeeping."},
}


def schema_for(api_version: str, kind: str) -> dict[str, Any]:
    """The structural schema of a built-in kind. One that is not described gets one that keeps everything."""
    if kind == "CustomResourceDefinition":
        return CRD_SCHEMA
    found = _event() if api_version.startswith("events.k8s.io/") and kind == "Event" else _all().get(kind)
    if found is None:
        return _anything(kind)
    return found


@cache
def compiled(api_version: str, kind: str) -> Schema:
    """The same, ready to prune, default and validate."""
    return compile_schema(schema_for(api_version, kind))


@cache
def _all() -> dict[str, dict[str, Any]]:
    text = builtin_pods.TEXT + _CORE + _APPS + _RBAC + _OTHERS
    return {kind: _with_head(schema) for kind, schema in read(text, _PARTS).items()}


@cache
def _event() -> dict[str, Any]:
    return _with_head(read(_EVENT, _PARTS)["Event"])


@cache
def _anything(kind: str) -> dict[str, Any]:
    about = f"{kind}, stored and served as it is."
    return {"type": "object", "description": about, "properties": _HEAD, "x-kubernetes-preserve-unknown-fields": True}


def _with_head(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "properties": {**_HEAD, **schema["properties"]}}

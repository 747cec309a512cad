"""Which scalars Go holds by pointer: there `0`, `false` and `""` mean something and are kept.

Every other optional scalar is `omitempty`: an explicit zero vanishes when kube-apiserver stores the
object. Neither the OpenAPI document nor the protobuf files tell the two apart; this table does,
from the Go types of k8s.io/api 1.36. Numbers and booleans are pointers unless listed, strings the
reverse.
"""

from __future__ import annotations

_OBSERVED = "observedGeneration"

PLAIN_NUMBERS: dict[str, str] = {
    "apiextensions.v1.CustomResourceColumnDefinition": "priority",
    "apps.v1.DaemonSetSpec": "minReadySeconds",
    "apps.v1.DaemonSetStatus": "numberAvailable numberUnavailable updatedNumberScheduled",
    "apps.v1.DeploymentSpec": "minReadySeconds",
    "apps.v1.DeploymentStatus": (
        "availableReplicas readyReplicas replicas unavailableReplicas updatedReplicas"
    ),
    "apps.v1.ReplicaSetSpec": "minReadySeconds",
    "apps.v1.ReplicaSetStatus": "availableReplicas fullyLabeledReplicas readyReplicas",
    "apps.v1.StatefulSetSpec": "minReadySeconds",
    "apps.v1.StatefulSetStatus": "currentReplicas readyReplicas updatedReplicas",
    "autoscaling.v1.ScaleSpec": "replicas",
    "autoscaling.v2.HorizontalPodAutoscalerStatus": "currentReplicas",
    "batch.v1.JobStatus": "active failed succeeded",
    "core.v1.AWSElasticBlockStoreVolumeSource": "partition",
    "core.v1.ContainerImage": "sizeBytes",
    "core.v1.ContainerPort": "hostPort",
    "core.v1.ContainerStateTerminated": "signal",
    "core.v1.Event": "count",
    "core.v1.EventSeries": "count",
    "core.v1.GCEPersistentDiskVolumeSource": "partition",
    "core.v1.Probe": (
        "failureThreshold initialDelaySeconds periodSeconds successThreshold timeoutSeconds"
    ),
    "core.v1.ReplicationControllerSpec": "minReadySeconds",
    "core.v1.ReplicationControllerStatus": "availableReplicas fullyLabeledReplicas readyReplicas",
    "core.v1.ServicePort": "nodePort",
    "core.v1.ServiceSpec": "healthCheckNodePort",
    "events.v1.Event": "deprecatedCount",
    "flowcontrol.v1.FlowSchemaSpec": "matchingPrecedence",
    "flowcontrol.v1.QueuingConfiguration": "handSize queueLengthLimit queues",
    "meta.v1.ObjectMeta": "generation",
    "meta.v1.Status": "code",
    "meta.v1.StatusDetails": "retryAfterSeconds",
    "networking.v1.ServiceBackendPort": "number",
    "resource.v1.DeviceSubRequest": "count",
    "resource.v1.ExactDeviceRequest": "count",
}

PLAIN_BOOLEANS: dict[str, str] = {
    "apiextensions.v1.CustomResourceDefinitionSpec": "preserveUnknownFields",
    "apiextensions.v1.CustomResourceDefinitionVersion": "deprecated",
    "apiextensions.v1.JSONSchemaProps": (
        "exclusiveMaximum exclusiveMinimum nullable uniqueItems x-kubernetes-embedded-resource"
        " x-kubernetes-int-or-string"
    ),
    "apiregistration.v1.APIServiceSpec": "insecureSkipTLSVerify",
    "apps.v1.DeploymentSpec": "paused",
    "authentication.v1.TokenReviewStatus": "authenticated",
    "authorization.v1.SubjectAccessReviewStatus": "denied",
    "core.v1.Container": "stdin stdinOnce tty",
    "core.v1.EphemeralContainer": "stdin stdinOnce tty",
    "core.v1.ISCSIPersistentVolumeSource": "chapAuthDiscovery chapAuthSession readOnly",
    "core.v1.ISCSIVolumeSource": "chapAuthDiscovery chapAuthSession readOnly",
    "core.v1.NodeSpec": "unschedulable",
    "core.v1.PodSpec": "hostIPC hostNetwork hostPID",
    "core.v1.ScaleIOPersistentVolumeSource": "readOnly sslEnabled",
    "core.v1.ScaleIOVolumeSource": "readOnly sslEnabled",
    "core.v1.ServiceSpec": "publishNotReadyAddresses",
    "flowcontrol.v1.ResourcePolicyRule": "clusterScope",
    "scheduling.v1.PriorityClass": "globalDefault",
}
_POINTER_READ_ONLY = frozenset(
    (
        "core.v1.AzureDiskVolumeSource",
        "core.v1.CSIVolumeSource",
        "core.v1.GlusterfsPersistentVolumeSource",
    )
)

POINTER_STRINGS: dict[str, str] = {
    "admissionregistration.v1.MutatingWebhook": (
        "failurePolicy matchPolicy reinvocationPolicy sideEffects"
    ),
    "admissionregistration.v1.MatchResources": "matchPolicy",
    "admissionregistration.v1.NamedRuleWithOperations": "scope",
    "admissionregistration.v1.ParamRef": "parameterNotFoundAction",
    "admissionregistration.v1.RuleWithOperations": "scope",
    "admissionregistration.v1.ServiceReference": "path",
    "admissionregistration.v1.ValidatingAdmissionPolicySpec": "failurePolicy",
    "admissionregistration.v1.MutatingAdmissionPolicySpec": "failurePolicy",
    "admissionregistration.v1.ValidatingWebhook": "failurePolicy matchPolicy sideEffects",
    "admissionregistration.v1.Validation": "reason",
    "admissionregistration.v1.WebhookClientConfig": "url",
    "apiextensions.v1.CustomResourceDefinitionVersion": "deprecationWarning",
    "apiextensions.v1.CustomResourceSubresourceScale": "labelSelectorPath",
    "apiextensions.v1.JSONSchemaProps": "$ref x-kubernetes-list-type x-kubernetes-map-type",
    "apiextensions.v1.ServiceReference": "path",
    "apiextensions.v1.ValidationRule": "reason",
    "apiextensions.v1.WebhookClientConfig": "url",
    "autoscaling.v2.HPAScalingRules": "selectPolicy",
    "batch.v1.CronJobSpec": "timeZone",
    "batch.v1.JobSpec": "completionMode managedBy podReplacementPolicy",
    "batch.v1.JobStatus": "failedIndexes",
    "batch.v1.PodFailurePolicyOnExitCodesRequirement": "containerName",
    "batch.v1.SuccessPolicyRule": "succeededIndexes",
    "coordination.v1.LeaseSpec": "holderIdentity preferredHolder strategy",
    "core.v1.AppArmorProfile": "localhostProfile",
    "core.v1.AzureDiskVolumeSource": "cachingMode fsType kind",
    "core.v1.AzureFilePersistentVolumeSource": "secretNamespace",
    "core.v1.CSIVolumeSource": "fsType",
    "core.v1.ClusterTrustBundleProjection": "name signerName",
    "core.v1.Container": "restartPolicy",
    "core.v1.ContainerStatus": "stopSignal",
    "core.v1.EndpointAddress": "nodeName",
    "core.v1.EndpointPort": "appProtocol",
    "core.v1.EphemeralContainer": "restartPolicy",
    "core.v1.GRPCAction": "service",
    "core.v1.GlusterfsPersistentVolumeSource": "endpointsNamespace",
    "core.v1.HostPathVolumeSource": "type",
    "core.v1.ISCSIPersistentVolumeSource": "initiatorName",
    "core.v1.ISCSIVolumeSource": "initiatorName",
    "core.v1.Lifecycle": "stopSignal",
    "core.v1.LoadBalancerIngress": "ipMode",
    "core.v1.LocalVolumeSource": "fsType",
    "core.v1.PersistentVolumeClaimSpec": "storageClassName volumeAttributesClassName volumeMode",
    "core.v1.PersistentVolumeClaimStatus": "currentVolumeAttributesClassName",
    "core.v1.PersistentVolumeSpec": "volumeAttributesClassName volumeMode",
    "core.v1.PodResourceClaim": "resourceClaimName resourceClaimTemplateName",
    "core.v1.PodSecurityContext": (
        "fsGroupChangePolicy seLinuxChangePolicy supplementalGroupsPolicy"
    ),
    "core.v1.PodSpec": "hostnameOverride preemptionPolicy runtimeClassName",
    "core.v1.PortStatus": "error",
    "core.v1.SeccompProfile": "localhostProfile",
    "core.v1.SecurityContext": "procMount",
    "core.v1.ServicePort": "appProtocol",
    "core.v1.ServiceSpec": (
        "internalTrafficPolicy ipFamilyPolicy loadBalancerClass trafficDistribution"
    ),
    "core.v1.TopologySpreadConstraint": "nodeAffinityPolicy nodeTaintsPolicy",
    "core.v1.TypedLocalObjectReference": "apiGroup",
    "core.v1.TypedObjectReference": "apiGroup namespace",
    "core.v1.VolumeMount": "mountPropagation recursiveReadOnly",
    "core.v1.VolumeMountStatus": "recursiveReadOnly",
    "core.v1.WindowsSecurityContextOptions": (
        "gmsaCredentialSpec gmsaCredentialSpecName runAsUserName"
    ),
    "discovery.v1.Endpoint": "hostname nodeName zone",
    "discovery.v1.EndpointPort": "appProtocol name protocol",
    "meta.v1.DeleteOptions": "propagationPolicy",
    "meta.v1.Preconditions": "resourceVersion uid",
    "networking.v1.HTTPIngressPath": "pathType",
    "networking.v1.IngressClassParametersReference": "apiGroup namespace scope",
    "networking.v1.IngressPortStatus": "error",
    "networking.v1.IngressSpec": "ingressClassName",
    "networking.v1.NetworkPolicyPort": "protocol",
    "policy.v1.PodDisruptionBudgetSpec": "unhealthyPodEvictionPolicy",
    "resource.v1.DeviceAttribute": "string version",
    "resource.v1.DeviceConstraint": "matchAttribute",
    "resource.v1.DeviceSelector": "deviceClassName",
    "resource.v1.ResourceSliceSpec": "nodeName",
    "scheduling.v1.PriorityClass": "preemptionPolicy",
    "storage.v1.CSIDriverSpec": "fsGroupPolicy",
    "storage.v1.StorageClass": "reclaimPolicy volumeBindingMode",
    "storage.v1.VolumeAttachmentSource": "persistentVolumeName",
}


VALUE_TIMES: dict[str, str] = {
    "apps.v1.DaemonSetCondition": "lastTransitionTime",
    "apps.v1.DeploymentCondition": "lastTransitionTime lastUpdateTime",
    "apps.v1.ReplicaSetCondition": "lastTransitionTime",
    "apps.v1.StatefulSetCondition": "lastTransitionTime",
    "autoscaling.v2.HorizontalPodAutoscalerCondition": "lastTransitionTime",
    "batch.v1.JobCondition": "lastProbeTime lastTransitionTime",
    "certificates.v1.CertificateSigningRequestCondition": "lastTransitionTime lastUpdateTime",
    "core.v1.ContainerStateRunning": "startedAt",
    "core.v1.ContainerStateTerminated": "finishedAt startedAt",
    "core.v1.NamespaceCondition": "lastTransitionTime",
    "core.v1.NodeCondition": "lastHeartbeatTime lastTransitionTime",
    "core.v1.PersistentVolumeClaimCondition": "lastProbeTime lastTransitionTime",
    "core.v1.PodCondition": "lastProbeTime lastTransitionTime",
    "core.v1.ReplicationControllerCondition": "lastTransitionTime",
}
"""Times that Go holds by value: absent ones are shown as null."""


def is_value_time(type_name: str, field: str) -> bool:
    return field in VALUE_TIMES.get(type_name, "").split()


def is_pointer(type_name: str, field: str, form: str) -> bool:
    """Whether an optional scalar's zero is kept; `form` is its code in the schema's data."""
    if form in "sB":
        return field in POINTER_STRINGS.get(type_name, "").split()
    if form == "b":
        if field == "readOnly":
            return type_name in _POINTER_READ_ONLY
        return field not in PLAIN_BOOLEANS.get(type_name, "").split()
    return field != _OBSERVED and field not in PLAIN_NUMBERS.get(type_name, "").split()

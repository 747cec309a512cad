"""The cluster roles of a stock server, as a table. Pure data; `rbac` makes objects of it.

A rule is (verbs, groups, resources[, names]) in words separated by blanks; "-" is the core group.
A rule whose groups begin with "/" is one of paths: (verbs, paths).
"""

from __future__ import annotations

__all__ = ["CONTROLLERS", "ROLES", "RuleRow"]

RuleRow = tuple[str, ...]

READ = "get list watch"
WRITE = "create delete deletecollection patch update"
EVENTS: RuleRow = ("create patch update", "- events.k8s.io", "events")

ROLES: dict[str, tuple[RuleRow, ...]] = {
    "cluster-admin": (("*", "*", "*"), ("*", "/*")),
    "system:discovery": (
        (
            "get",
            "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version "
            "/version/",
        ),
    ),
    "system:monitoring": (
        ("get", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"),
    ),
    "system:public-info-viewer": (("get", "/healthz /livez /readyz /version /version/"),),
    "system:basic-user": (
        ("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
        ("create", "authentication.k8s.io", "selfsubjectreviews"),
    ),
    "system:heapster": (
        (READ, "-", "events namespaces nodes pods"),
        (READ, "apps extensions", "deployments"),
    ),
    "system:node": (
        ("create", "authentication.k8s.io", "tokenreviews"),
        ("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
        (READ, "-", "services"),
        ("create get list watch", "-", "nodes"),
        ("patch update", "-", "nodes/status"),
        ("patch update", "-", "nodes"),
        EVENTS,
        (READ, "-", "pods"),
        ("create delete", "-", "pods"),
        ("patch update", "-", "pods/status"),
        ("create", "-", "pods/eviction"),
        (READ, "-", "configmaps secrets"),
        ("get", "-", "persistentvolumeclaims persistentvolumes"),
        ("get", "-", "endpoints"),
        ("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
        ("create delete get patch update", "coordination.k8s.io", "leases"),
        ("get", "storage.k8s.io", "volumeattachments"),
        ("create", "-", "serviceaccounts/token"),
        ("get patch update", "-", "persistentvolumeclaims/status"),
        (READ, "storage.k8s.io", "csidrivers"),
        ("create delete get patch update", "storage.k8s.io", "csinodes"),
        (READ, "node.k8s.io", "runtimeclasses"),
        ("get", "resource.k8s.io", "resourceclaims"),
        ("deletecollection", "resource.k8s.io", "resourceslices"),
        ("get", "-", "serviceaccounts"),
    ),
    "system:node-problem-detector": (
        ("get", "-", "nodes"),
        ("patch", "-", "nodes/status"),
        EVENTS,
    ),
    "system:kubelet-api-admin": (
        (READ, "-", "nodes"),
        ("proxy", "-", "nodes"),
        (
            "*",
            "-",
            "nodes/checkpoint nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods "
            "nodes/proxy nodes/stats",
        ),
    ),
    "system:node-bootstrapper": (
        ("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
    ),
    "system:auth-delegator": (
        ("create", "authentication.k8s.io", "tokenreviews"),
        ("create", "authorization.k8s.io", "subjectaccessreviews"),
    ),
    "system:kube-aggregator": ((READ, "-", "endpoints services"),),
    "system:kube-controller-manager": (
        EVENTS,
        ("create", "coordination.k8s.io", "leases"),
        ("get list update watch", "coordination.k8s.io", "leases", "kube-controller-manager"),
        ("create", "-", "secrets serviceaccounts"),
        ("delete", "-", "secrets"),
        ("get", "-", "configmaps namespaces secrets serviceaccounts"),
        ("update", "-", "secrets serviceaccounts"),
        ("create", "authentication.k8s.io", "tokenreviews"),
        ("create", "authorization.k8s.io", "subjectaccessreviews"),
        ("list watch", "*", "*"),
        ("create", "-", "serviceaccounts/token"),
    ),
    "system:kube-scheduler": (
        EVENTS,
        ("create", "coordination.k8s.io", "leases"),
        ("get list update watch", "coordination.k8s.io", "leases", "kube-scheduler"),
        (
            "create delete deletecollection get list patch update watch",
            "coordination.k8s.io",
            "leasecandidates",
        ),
        (READ, "-", "nodes"),
        ("delete get list watch", "-", "pods"),
        ("create", "-", "bindings pods/binding"),
        ("patch update", "-", "pods/status"),
        (READ, "-", "replicationcontrollers services"),
        (READ, "apps extensions", "replicasets"),
        (READ, "apps", "statefulsets"),
        (READ, "policy", "poddisruptionbudgets"),
        (READ, "-", "persistentvolumeclaims persistentvolumes"),
        ("create", "authentication.k8s.io", "tokenreviews"),
        ("create", "authorization.k8s.io", "subjectaccessreviews"),
        (READ, "storage.k8s.io", "csinodes"),
        (READ, "storage.k8s.io", "volumeattachments"),
        (READ, "-", "namespaces"),
        (READ, "storage.k8s.io", "csidrivers"),
        (READ, "storage.k8s.io", "csistoragecapacities"),
        (READ, "resource.k8s.io", "deviceclasses"),
        ("get list patch update watch", "resource.k8s.io", "resourceclaims"),
        ("get list patch update watch", "resource.k8s.io", "resourceclaims/status"),
        ("update", "-", "pods/finalizers"),
        (READ, "resource.k8s.io", "resourceslices"),
        ("create delete", "resource.k8s.io", "resourceclaims"),
        ("patch update", "resource.k8s.io", "resourceclaims/binding"),
    ),
    "system:kube-dns": (
        ("list watch", "-", "endpoints services"),
        ("list watch", "discovery.k8s.io", "endpointslices"),
    ),
    "system:persistent-volume-provisioner": (
        ("create delete get list watch", "-", "persistentvolumes"),
        ("get list update watch", "-", "persistentvolumeclaims"),
        (READ, "storage.k8s.io", "storageclasses"),
        ("watch", "-", "events"),
        EVENTS,
    ),
    "system:volume-scheduler": (
        ("get list patch update watch", "-", "persistentvolumes"),
        (READ, "storage.k8s.io", "storageclasses"),
        ("get list patch update watch", "-", "persistentvolumeclaims"),
    ),
    "system:node-proxier": (
        ("list watch", "-", "endpoints services"),
        (READ, "-", "nodes"),
        EVENTS,
        ("list watch", "discovery.k8s.io", "endpointslices"),
        ("list watch", "networking.k8s.io", "servicecidrs"),
    ),
    "system:service-account-issuer-discovery": (
        (
            "get",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ "
            "/openid/v1/jwks /openid/v1/jwks/",
        ),
    ),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": (
        ("create", "certificates.k8s.io", "certificatesigningrequests/nodeclient"),
    ),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": (
        ("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeclient"),
    ),
    "system:certificates.k8s.io:kube-apiserver-client-approver": (
        ("approve", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client"),
    ),
    "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver": (
        (
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/kube-apiserver-client-kubelet",
        ),
    ),
    "system:certificates.k8s.io:kubelet-serving-approver": (
        ("approve", "certificates.k8s.io", "signers", "kubernetes.io/kubelet-serving"),
    ),
    "system:certificates.k8s.io:legacy-unknown-approver": (
        ("approve", "certificates.k8s.io", "signers", "kubernetes.io/legacy-unknown"),
    ),
    "system:aggregate-to-admin": (
        ("create", "authorization.k8s.io", "localsubjectaccessreviews"),
        (
            "create delete deletecollection get list patch update watch",
            "rbac.authorization.k8s.io",
            "rolebindings roles",
        ),
    ),
    "system:aggregate-to-edit": (
        (READ, "-", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
        ("impersonate", "-", "serviceaccounts"),
        (WRITE, "-", "pods pods/attach pods/exec pods/portforward pods/proxy"),
        ("create", "-", "pods/eviction"),
        (
            WRITE,
            "-",
            "configmaps events persistentvolumeclaims replicationcontrollers "
            "replicationcontrollers/scale secrets serviceaccounts services services/proxy",
        ),
        ("create", "-", "serviceaccounts/token"),
        (
            WRITE,
            "apps",
            "daemonsets deployments deployments/rollback deployments/scale replicasets "
            "replicasets/scale statefulsets statefulsets/scale",
        ),
        (WRITE, "autoscaling", "horizontalpodautoscalers"),
        (WRITE, "batch", "cronjobs jobs"),
        (WRITE, "policy", "poddisruptionbudgets"),
        (WRITE, "networking.k8s.io", "ingresses networkpolicies"),
        (
            "create delete deletecollection get list patch update watch",
            "coordination.k8s.io",
            "leases",
        ),
        (WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
    ),
    "system:aggregate-to-view": (
        (
            READ,
            "-",
            "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods "
            "replicationcontrollers replicationcontrollers/scale serviceaccounts services "
            "services/status",
        ),
        (
            READ,
            "-",
            "bindings events limitranges namespaces/status pods/log pods/status "
            "replicationcontrollers/status resourcequotas resourcequotas/status",
        ),
        (READ, "-", "namespaces"),
        (READ, "discovery.k8s.io", "endpointslices"),
        (
            READ,
            "apps",
            "controllerrevisions daemonsets daemonsets/status deployments deployments/scale "
            "deployments/status replicasets replicasets/scale replicasets/status statefulsets "
            "statefulsets/scale statefulsets/status",
        ),
        (READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
        (READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
        (READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
        (READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
        (READ, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
    ),
}

AGGREGATED: dict[str, str] = {"admin": "admin", "edit": "edit", "view": "view"}
"""Roles that are the union of those labelled aggregate-to-NAME."""

CONTROLLERS: dict[str, tuple[RuleRow, ...]] = {
    "attachdetach-controller": (
        ("list watch", "-", "persistentvolumeclaims persistentvolumes"),
        (READ, "-", "nodes"),
        ("patch update", "-", "nodes/status"),
        ("list watch", "-", "pods"),
        ("create delete get list watch", "storage.k8s.io", "volumeattachments"),
        (READ, "storage.k8s.io", "csidrivers csinodes"),
        EVENTS,
    ),
    "certificate-controller": (
        ("delete get list watch", "certificates.k8s.io", "certificatesigningrequests"),
        (
            "update",
            "certificates.k8s.io",
            "certificatesigningrequests/approval certificatesigningrequests/status",
        ),
        ("approve sign", "certificates.k8s.io", "signers"),
        ("create", "authorization.k8s.io", "subjectaccessreviews"),
        EVENTS,
    ),
    "clusterrole-aggregation-controller": (
        ("escalate get list patch update watch", "rbac.authorization.k8s.io", "clusterroles"),
    ),
    "cronjob-controller": (
        ("get list update watch", "batch", "cronjobs"),
        ("create delete get list patch update watch", "batch", "jobs"),
        ("update", "batch", "cronjobs/status"),
        ("update", "batch", "cronjobs/finalizers"),
        ("delete list", "-", "pods"),
        EVENTS,
    ),
    "daemon-set-controller": (
        (READ, "apps extensions", "daemonsets"),
        ("update", "apps extensions", "daemonsets/status"),
        ("update", "apps extensions", "daemonsets/finalizers"),
        ("list watch", "-", "nodes"),
        ("create delete list patch watch", "-", "pods"),
        ("create", "-", "pods/binding"),
        ("create delete get list patch update watch", "apps", "controllerrevisions"),
        EVENTS,
    ),
    "deployment-controller": (
        ("get list update watch", "apps extensions", "deployments"),
        ("update", "apps extensions", "deployments/status"),
        ("update", "apps extensions", "deployments/finalizers"),
        ("create delete get list patch update watch", "apps extensions", "replicasets"),
        ("get list update watch", "-", "pods"),
        EVENTS,
    ),
    "device-taint-eviction-controller": (
        (READ, "resource.k8s.io", "resourceclaims resourceslices deviceclasses"),
        ("delete get list watch", "-", "pods"),
        ("patch update", "-", "pods/status"),
        EVENTS,
    ),
    "disruption-controller": (
        (READ, "apps extensions", "deployments"),
        (READ, "apps extensions", "replicasets"),
        (READ, "-", "replicationcontrollers"),
        (READ, "policy", "poddisruptionbudgets"),
        (READ, "apps", "statefulsets"),
        ("update", "policy", "poddisruptionbudgets/status"),
        ("get list watch", "-", "pods"),
        ("patch update", "-", "pods/status"),
        ("get", "*", "*/scale"),
        EVENTS,
    ),
    "endpoint-controller": (
        (READ, "-", "pods services"),
        ("create delete get list update", "-", "endpoints"),
        ("create", "-", "endpoints/restricted"),
        EVENTS,
    ),
    "endpointslice-controller": (
        (READ, "-", "nodes pods services"),
        ("update", "-", "services/finalizers"),
        ("create delete get list update", "discovery.k8s.io", "endpointslices"),
        ("create", "discovery.k8s.io", "endpointslices/restricted"),
        EVENTS,
    ),
    "endpointslicemirroring-controller": (
        (READ, "-", "endpoints services"),
        ("update", "-", "services/finalizers"),
        ("update", "-", "endpoints/finalizers"),
        ("create delete get list update", "discovery.k8s.io", "endpointslices"),
        ("create", "discovery.k8s.io", "endpointslices/restricted"),
        EVENTS,
    ),
    "ephemeral-volume-controller": (
        ("update", "-", "pods/finalizers"),
        (READ, "-", "pods"),
        ("create get list watch", "-", "persistentvolumeclaims"),
        EVENTS,
    ),
    "expand-controller": (
        ("get list patch update watch", "-", "persistentvolumes"),
        ("patch update", "-", "persistentvolumeclaims/status"),
        (READ, "-", "persistentvolumeclaims"),
        (READ, "storage.k8s.io", "storageclasses"),
        EVENTS,
    ),
    "generic-garbage-collector": (
        ("delete get list patch update watch", "*", "*"),
        EVENTS,
    ),
    "horizontal-pod-autoscaler": (
        (READ, "autoscaling", "horizontalpodautoscalers"),
        ("update", "autoscaling", "horizontalpodautoscalers/status"),
        ("get update", "*", "*/scale"),
        ("list", "-", "pods"),
        ("list", "metrics.k8s.io", "pods"),
        ("get list", "custom.metrics.k8s.io", "*"),
        ("get list", "external.metrics.k8s.io", "*"),
        EVENTS,
    ),
    "job-controller": (
        ("get list patch update watch", "batch", "jobs"),
        ("update", "batch", "jobs/status"),
        ("update", "batch", "jobs/finalizers"),
        ("create delete list patch watch", "-", "pods"),
        EVENTS,
    ),
    "legacy-service-account-token-cleaner": (
        ("get", "-", "configmaps", "kube-apiserver-legacy-service-account-token-tracking"),
        ("delete patch", "-", "secrets"),
    ),
    "namespace-controller": (
        ("delete get list watch", "-", "namespaces"),
        ("update", "-", "namespaces/finalize namespaces/status"),
        ("delete deletecollection get list", "*", "*"),
    ),
    "node-controller": (
        ("delete get list patch update", "-", "nodes"),
        ("patch update", "-", "nodes/status"),
        ("patch update", "-", "pods/status"),
        ("delete get list", "-", "pods"),
        EVENTS,
    ),
    "persistent-volume-binder": (
        ("create delete get list update watch", "-", "persistentvolumes"),
        ("update", "-", "persistentvolumes/status"),
        ("get list update watch", "-", "persistentvolumeclaims"),
        ("update", "-", "persistentvolumeclaims/status"),
        ("create delete get list watch", "-", "pods"),
        (READ, "storage.k8s.io", "storageclasses"),
        ("get", "-", "nodes"),
        EVENTS,
    ),
    "pod-garbage-collector": (
        ("delete list watch", "-", "pods"),
        ("get list", "-", "nodes"),
        ("patch", "-", "pods/status"),
    ),
    "pv-protection-controller": (
        ("get list update watch", "-", "persistentvolumes"),
        EVENTS,
    ),
    "pvc-protection-controller": (
        ("get list update watch", "-", "persistentvolumeclaims"),
        (READ, "-", "pods"),
        EVENTS,
    ),
    "replicaset-controller": (
        ("get list update watch", "apps extensions", "replicasets"),
        ("update", "apps extensions", "replicasets/status"),
        ("update", "apps extensions", "replicasets/finalizers"),
        ("create delete list patch watch", "-", "pods"),
        EVENTS,
    ),
    "replication-controller": (
        ("get list update watch", "-", "replicationcontrollers"),
        ("update", "-", "replicationcontrollers/status"),
        ("update", "-", "replicationcontrollers/finalizers"),
        ("create delete list patch watch", "-", "pods"),
        EVENTS,
    ),
    "resource-claim-controller": (
        ("update", "-", "pods/finalizers"),
        (READ, "-", "pods"),
        ("create delete get list watch", "resource.k8s.io", "resourceclaims"),
        ("patch update", "resource.k8s.io", "resourceclaims resourceclaims/status"),
        ("patch update", "-", "pods/status"),
        EVENTS,
    ),
    "resourcequota-controller": (
        ("list watch", "*", "*"),
        ("update", "-", "resourcequotas/status"),
        EVENTS,
    ),
    "root-ca-cert-publisher": (("create update", "-", "configmaps"), EVENTS),
    "route-controller": (
        ("list watch", "-", "nodes"),
        ("patch", "-", "nodes/status"),
        EVENTS,
    ),
    "selinux-warning-controller": (
        (READ, "-", "persistentvolumeclaims persistentvolumes pods"),
        (READ, "storage.k8s.io", "csidrivers"),
        EVENTS,
    ),
    "service-account-controller": (("create", "-", "serviceaccounts"), EVENTS),
    "service-ca-cert-publisher": (("create update", "-", "configmaps"), EVENTS),
    "service-cidrs-controller": (
        ("get list patch update watch", "networking.k8s.io", "servicecidrs"),
        ("patch update", "networking.k8s.io", "servicecidrs/finalizers"),
        ("patch update", "networking.k8s.io", "servicecidrs/status"),
        (READ, "networking.k8s.io", "ipaddresses"),
        EVENTS,
    ),
    "service-controller": (
        (READ, "-", "services"),
        ("patch update", "-", "services/status"),
        ("list watch", "-", "nodes"),
        EVENTS,
    ),
    "statefulset-controller": (
        ("list watch", "-", "pods"),
        (READ, "apps", "statefulsets"),
        ("update", "apps", "statefulsets/status"),
        ("update", "apps", "statefulsets/finalizers"),
        ("create delete get patch update", "-", "pods"),
        ("create delete get list patch update watch", "apps", "controllerrevisions"),
        ("create get", "-", "persistentvolumeclaims"),
        EVENTS,
    ),
    "ttl-after-finished-controller": (("delete get list watch", "batch", "jobs"), EVENTS),
    "ttl-controller": (("list patch update watch", "-", "nodes"), EVENTS),
    "validatingadmissionpolicy-status-controller": (
        (READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
        (
            "get patch update",
            "admissionregistration.k8s.io",
            "validatingadmissionpolicies/status",
        ),
        EVENTS,
    ),
    "volumeattributesclass-protection-controller": (
        ("get list update watch", "storage.k8s.io", "volumeattributesclasses"),
        (READ, "-", "persistentvolumeclaims persistentvolumes"),
        EVENTS,
    ),
}

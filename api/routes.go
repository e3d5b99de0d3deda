package api

import "strings"

// table is every route that is served. Of those that match, the first counts:
// longer ones come first.
func (a *API) table() []route {
	return []route{
		exact("GET", "/v1/jobs", listJobs),
		exact("PUT", "/v1/jobs", registerJob),
		exact("PUT", "/v1/jobs/parse", parseJob),
		withID("GET", "/v1/job/", "/allocations", jobAllocations),
		withID("GET", "/v1/job/", "/evaluations", jobEvaluations),
		withID("GET", "/v1/job/", "/summary", jobSummary),
		withID("GET", "/v1/job/", "/versions", jobVersions),
		withID("GET", "/v1/job/", "/deployments", jobDeployments),
		withID("GET", "/v1/job/", "/deployment", jobDeployment),
		withID("PUT", "/v1/job/", "/plan", planJob),
		withID("PUT", "/v1/job/", "/evaluate", unsupportedPart),
		withID("PUT", "/v1/job/", "/scale", scaleJob),
		withID("GET", "/v1/job/", "/scale", jobScaleStatus),
		withID("PUT", "/v1/job/", "/revert", revertJob),
		withID("PUT", "/v1/job/", "/stable", setJobStable),
		withID("PUT", "/v1/job/", "/tag", tagJob),
		withID("DELETE", "/v1/job/", "/tag", untagJob),
		withID("PUT", "/v1/job/", "/dispatch/payload", unsupportedPart),
		withID("PUT", "/v1/job/", "/dispatch", dispatchJob),
		withID("PUT", "/v1/job/", "/periodic/force", forcePeriodic),
		withID("GET", "/v1/job/", "/submission", unsupportedPart),
		withID("GET", "/v1/job/", "/services", unsupportedPart),
		withID("GET", "/v1/job/", "/actions", unsupportedPart),
		withID("GET", "/v1/job/", "", readJob),
		withID("PUT", "/v1/job/", "", updateJob),
		withID("DELETE", "/v1/job/", "", stopJob),

		exact("GET", "/v1/scaling/policies", listScalingPolicies),
		withID("GET", "/v1/scaling/policy/", "", readScalingPolicy),

		exact("GET", "/v1/namespaces", listNamespaces),
		exact("PUT", "/v1/namespace", applyNamespace),
		withID("GET", "/v1/namespace/", "", readNamespace),
		withID("PUT", "/v1/namespace/", "", applyNamespace),
		withID("DELETE", "/v1/namespace/", "", deleteNamespace),

		exact("GET", "/v1/allocations", listAllocs),
		withID("GET", "/v1/allocation/", "/services", unsupportedPart),
		withID("GET", "/v1/allocation/", "", readAlloc),
		withID("PUT", "/v1/allocation/", "/stop", stopAlloc),
		withID("GET", "/v1/client/fs/logs/", "", allocLogs),

		exact("GET", "/v1/evaluations", listEvals),
		exact("DELETE", "/v1/evaluations", deleteEvals),
		exact("GET", "/v1/evaluations/count", countEvals),
		withID("GET", "/v1/evaluation/", "/allocations", evalAllocations),
		withID("GET", "/v1/evaluation/", "", readEval),

		exact("GET", "/v1/nodes", listNodes),
		exact("GET", "/v1/node/pools", unsupportedPart),
		withID("GET", "/v1/node/pool/", "", unsupportedPart),
		withID("GET", "/v1/node/", "/allocations", nodeAllocations),
		withID("GET", "/v1/node/", "", readNode),
		withID("PUT", "/v1/node/", "/drain", drainNode),
		withID("PUT", "/v1/node/", "/eligibility", setEligibility),
		withID("PUT", "/v1/node/", "/purge", purgeNode),
		withID("PUT", "/v1/node/", "/evaluate", evaluateNode),

		exact("GET", "/v1/deployments", listDeployments),
		withID("GET", "/v1/deployment/allocations/", "", deploymentAllocations),
		withID("PUT", "/v1/deployment/promote/", "", promoteDeployment),
		withID("PUT", "/v1/deployment/fail/", "", failDeployment),
		withID("PUT", "/v1/deployment/pause/", "", pauseDeployment),
		withID("PUT", "/v1/deployment/allocation-health/", "", setAllocHealth),
		withID("PUT", "/v1/deployment/unblock/", "", unblockDeployment),
		withID("GET", "/v1/deployment/", "", readDeployment),

		exact("GET", "/v1/status/leader", statusLeader),
		exact("GET", "/v1/status/peers", statusPeers),
		exact("GET", "/v1/regions", listRegions),
		exact("GET", "/v1/federation/regions", federationRegions),
		exact("GET", "/v1/federation/jobs", federationJobs),
		withID("GET", "/v1/federation/job/", "", federationJob),
		exact("GET", "/v1/federation/nodes", federationNodes),
		exact("GET", "/v1/federation/deployments", federationDeployments),
		exact("GET", allEventsPath, streamAllEvents),
		withID("PUT", "/v1/federation/region/", "/accept", acceptRegion),
		withID("GET", "/v1/federation/rollout/", "", readRollout),

		exact("GET", "/v1/operator/raft/configuration", raftConfiguration),
		exact("DELETE", "/v1/operator/raft/peer", raftRemovePeer),
		exact("PUT", "/v1/operator/raft/transfer-leadership", raftTransferLeadership),
		exact("GET", "/v1/operator/autopilot/configuration", autopilotConfiguration),
		exact("PUT", "/v1/operator/autopilot/configuration", setAutopilotConfiguration),
		exact("GET", "/v1/operator/autopilot/health", autopilotHealth),
		exact("GET", "/v1/operator/scheduler/configuration", schedulerConfiguration),
		exact("PUT", "/v1/operator/scheduler/configuration", setSchedulerConfiguration),
		exact("GET", "/v1/operator/snapshot", saveSnapshot),
		exact("PUT", "/v1/operator/snapshot", restoreSnapshot),

		exact("GET", "/v1/event/stream", streamEvents),

		exact("PUT", "/v1/system/gc", collectGarbage),
		exact("PUT", "/v1/system/reconcile/summaries", reconcileSummaries),

		exact("GET", "/v1/agent/self", agentSelf),
		exact("GET", "/v1/agent/members", agentMembers),
		exact("GET", "/v1/agent/health", agentHealth),
		exact("GET", "/v1/agent/servers", agentServers),
		exact("PUT", "/v1/agent/join", agentJoin),
		exact("PUT", "/v1/agent/force-leave", agentForceLeave),
		exact("GET", "/v1/metrics", showMetrics),
	}
}

// unserved are the beginnings of the paths that Nomad has and this version does
// not serve.
var unserved = []string{
	"/v1/acl", "/v1/agent/", "/v1/allocation/", "/v1/client/", "/v1/deployment/",
	"/v1/jobs/statuses", "/v1/node/pool", "/v1/operator/", "/v1/plugin", "/v1/plugins", "/v1/quota",
	"/v1/quotas", "/v1/recommendation", "/v1/search", "/v1/sentinel/", "/v1/service/", "/v1/services", "/v1/system/",
	"/v1/validate/job", "/v1/var/", "/v1/vars", "/v1/volume", "/v1/volumes", "/.well-known/", "/ui",
}

// known reports whether Nomad has something at path.
func known(path string) bool {
	for _, p := range unserved {
		if path == p || strings.HasPrefix(path, strings.TrimSuffix(p, "/")+"/") {
			return true
		}
	}
	return false
}

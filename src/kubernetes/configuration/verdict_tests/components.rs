//! The fields of the components' documents, which reach the components as they are, but for a few.

/// KubeletConfiguration.
pub(super) const KUBELET: &str = "
    apiVersion                               read: chooses the type
    kind                                     read: chooses the type
    enableServer                             as it is
    staticPodPath                            as it is; /etc/kubernetes/manifests when absent
    podLogsDir                               as it is
    syncFrequency                            as it is
    fileCheckFrequency                       as it is
    httpCheckFrequency                       as it is
    staticPodURL                             as it is
    staticPodURLHeader                       as it is
    address                                  as it is
    port                                     as it is
    readOnlyPort                             as it is
    tlsCertFile                              as it is
    tlsPrivateKeyFile                        as it is
    tlsCipherSuites                          as it is
    tlsCurvePreferences                      as it is; from Kubernetes 1.36 on
    tlsMinVersion                            as it is
    rotateCertificates                       always true
    serverTLSBootstrap                       as it is
    authentication                           below
    authentication.x509                      below
    authentication.x509.clientCAFile         as it is; the CA in certificatesDir when absent
    authentication.webhook                   below
    authentication.webhook.enabled           as it is; true when absent
    authentication.webhook.cacheTTL          as it is
    authentication.anonymous                 below
    authentication.anonymous.enabled         as it is; false when absent
    authorization                            below
    authorization.mode                       as it is; Webhook when absent
    authorization.webhook                    below
    authorization.webhook.cacheAuthorizedTTL as it is
    authorization.webhook.cacheUnauthorizedTTL as it is
    registryPullQPS                          as it is
    registryBurst                            as it is
    imagePullCredentialsVerificationPolicy   as it is
    preloadedImagesVerificationAllowlist     as it is
    eventRecordQPS                           as it is
    eventBurst                               as it is
    enableDebuggingHandlers                  as it is
    enableContentionProfiling                as it is
    healthzPort                              as it is; 10248 when absent
    healthzBindAddress                       as it is; 127.0.0.1 when absent
    oomScoreAdj                              as it is
    clusterDomain                            as it is; networking.dnsDomain when absent
    clusterDNS                               as it is; the 10th address of the services when absent
    streamingConnectionIdleTimeout           as it is
    nodeStatusUpdateFrequency                as it is
    nodeStatusReportFrequency                as it is
    nodeLeaseDurationSeconds                 as it is
    imageMinimumGCAge                        as it is
    imageMaximumGCAge                        as it is
    imageGCHighThresholdPercent              as it is
    imageGCLowThresholdPercent               as it is
    volumeStatsAggPeriod                     as it is
    kubeletCgroups                           as it is
    systemCgroups                            as it is
    cgroupRoot                               as it is
    cgroupsPerQOS                            as it is
    cgroupDriver                             as it is; systemd when absent
    cpuManagerPolicy                         as it is
    singleProcessOOMKill                     as it is
    cpuManagerPolicyOptions                  as it is
    cpuManagerReconcilePeriod                as it is
    memoryManagerPolicy                      as it is
    topologyManagerPolicy                    as it is
    topologyManagerScope                     as it is
    topologyManagerPolicyOptions             as it is
    qosReserved                              as it is
    runtimeRequestTimeout                    as it is
    hairpinMode                              as it is
    maxPods                                  as it is
    podCIDR                                  as it is
    podPidsLimit                             as it is
    resolvConf                               as it is; systemd-resolved's file when absent and it runs
    runOnce                                  as it is
    cpuCFSQuota                              as it is
    cpuCFSQuotaPeriod                        as it is
    nodeStatusMaxImages                      as it is
    maxOpenFiles                             as it is
    contentType                              as it is
    kubeAPIQPS                               as it is
    kubeAPIBurst                             as it is
    serializeImagePulls                      as it is
    maxParallelImagePulls                    as it is
    evictionHard                             as it is
    evictionSoft                             as it is
    evictionSoftGracePeriod                  as it is
    evictionPressureTransitionPeriod         as it is
    evictionMaxPodGracePeriod                as it is
    evictionMinimumReclaim                   as it is
    mergeDefaultEvictionSettings             as it is
    podsPerCore                              as it is
    enableControllerAttachDetach             as it is
    protectKernelDefaults                    as it is
    makeIPTablesUtilChains                   as it is
    iptablesMasqueradeBit                    as it is
    iptablesDropBit                          as it is
    featureGates                             as it is
    failSwapOn                               as it is
    memorySwap                               below
    memorySwap.swapBehavior                  as it is
    containerLogMaxSize                      as it is
    containerLogMaxFiles                     as it is
    containerLogMaxWorkers                   as it is
    containerLogMonitorInterval              as it is
    configMapAndSecretChangeDetectionStrategy as it is
    systemReserved                           as it is
    kubeReserved                             as it is
    reservedSystemCPUs                       as it is
    showHiddenMetricsForVersion              as it is
    systemReservedCgroup                     as it is
    kubeReservedCgroup                       as it is
    enforceNodeAllocatable                   as it is
    allowedUnsafeSysctls                     as it is
    defaultPodSysctls                        as it is; from Kubernetes 1.37 on
    volumePluginDir                          as it is
    providerID                               as it is
    kernelMemcgNotification                  as it is
    logging                                  below
    logging.format                           as it is
    logging.flushFrequency                   as it is
    logging.verbosity                        as it is
    logging.vmodule                          as it is
    logging.vmodule[].filePattern            as it is
    logging.vmodule[].verbosity              as it is
    logging.options                          below
    logging.options.text                     below
    logging.options.text.splitStream         as it is
    logging.options.text.infoBufferSize      as it is
    logging.options.json                     below
    logging.options.json.splitStream         as it is
    logging.options.json.infoBufferSize      as it is
    enableSystemLogHandler                   as it is
    enableSystemLogQuery                     as it is
    shutdownGracePeriod                      as it is
    shutdownGracePeriodCriticalPods          as it is
    shutdownGracePeriodByPodPriority         as it is
    shutdownGracePeriodByPodPriority[].priority as it is
    shutdownGracePeriodByPodPriority[].shutdownGracePeriodSeconds as it is
    crashLoopBackOff                         below
    crashLoopBackOff.maxContainerRestartPeriod as it is
    reservedMemory                           as it is
    reservedMemory[].numaNode                as it is
    reservedMemory[].limits                  as it is
    enableProfilingHandler                   as it is
    enableDebugFlagsHandler                  as it is
    seccompDefault                           as it is
    memoryThrottlingFactor                   as it is
    memoryReservationPolicy                  as it is; from Kubernetes 1.36 on
    registerWithTaints                       as it is
    registerWithTaints[].key                 as it is
    registerWithTaints[].value               as it is
    registerWithTaints[].effect              as it is
    registerWithTaints[].timeAdded           as it is
    registerNode                             as it is
    tracing                                  below
    tracing.endpoint                         as it is
    tracing.samplingRatePerMillion           as it is
    localStorageCapacityIsolation            as it is
    containerRuntimeEndpoint                 as it is; on each node that of instance-config.yaml
    imageServiceEndpoint                     as it is
    failCgroupV1                             as it is
    userNamespaces                           below
    userNamespaces.idsPerPod                 as it is
";

/// KubeProxyConfiguration.
pub(super) const KUBE_PROXY: &str = "
    apiVersion                               read: chooses the type
    kind                                     read: chooses the type
    featureGates                             as it is
    clientConnection                         below
    clientConnection.kubeconfig              as it is; that of its ConfigMap when absent
    clientConnection.acceptContentTypes      as it is
    clientConnection.contentType             as it is
    clientConnection.qps                     as it is
    clientConnection.burst                   as it is
    logging                                  below
    logging.format                           as it is
    logging.flushFrequency                   as it is
    logging.verbosity                        as it is
    logging.vmodule                          as it is
    logging.vmodule[].filePattern            as it is
    logging.vmodule[].verbosity              as it is
    logging.options                          below
    logging.options.text                     below
    logging.options.text.splitStream         as it is
    logging.options.text.infoBufferSize      as it is
    logging.options.json                     below
    logging.options.json.splitStream         as it is
    logging.options.json.infoBufferSize      as it is
    hostnameOverride                         as it is
    bindAddress                              as it is; all addresses when absent
    healthzBindAddress                       as it is
    metricsBindAddress                       as it is
    bindAddressHardFail                      as it is
    enableProfiling                          as it is
    showHiddenMetricsForVersion              as it is
    mode                                     as it is; iptables when absent, from 1.37 on
    iptables                                 below
    iptables.masqueradeBit                   as it is
    iptables.masqueradeAll                   as it is
    iptables.localhostNodePorts              as it is
    iptables.syncPeriod                      as it is
    iptables.minSyncPeriod                   as it is
    ipvs                                     below
    ipvs.syncPeriod                          as it is
    ipvs.minSyncPeriod                       as it is
    ipvs.scheduler                           as it is
    ipvs.excludeCIDRs                        as it is
    ipvs.strictARP                           as it is
    ipvs.tcpTimeout                          as it is
    ipvs.tcpFinTimeout                       as it is
    ipvs.udpTimeout                          as it is
    nftables                                 below
    nftables.masqueradeBit                   as it is
    nftables.masqueradeAll                   as it is
    nftables.syncPeriod                      as it is
    nftables.minSyncPeriod                   as it is
    winkernel                                below
    winkernel.networkName                    as it is
    winkernel.sourceVip                      as it is
    winkernel.enableDSR                      as it is
    winkernel.rootHnsEndpointName            as it is
    winkernel.forwardHealthCheckVip          as it is
    detectLocalMode                          as it is
    detectLocal                              below
    detectLocal.bridgeInterface              as it is
    detectLocal.interfaceNamePrefix          as it is
    clusterCIDR                              as it is; networking.podSubnet when absent
    nodePortAddresses                        as it is
    oomScoreAdj                              as it is
    conntrack                                below
    conntrack.maxPerCore                     as it is
    conntrack.min                            as it is
    conntrack.tcpEstablishedTimeout          as it is
    conntrack.tcpCloseWaitTimeout            as it is
    conntrack.tcpBeLiberal                   as it is
    conntrack.udpTimeout                     as it is
    conntrack.udpStreamTimeout               as it is
    configSyncPeriod                         as it is
    portRange                                as it is
    windowsRunAsService                      as it is
";

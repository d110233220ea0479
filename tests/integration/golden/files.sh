#!/usr/bin/env bash
# files.sh NAME...: on a host, for each configuration, what upstream's kubeadm and what our engine write, one after the
# other at the same place, and what each says in a dry run that it would write to the API server; prints an archive of both
# sides' archives and dry runs, in base64. Nothing of Kubernetes has to run: the kubelet is a unit that does nothing.
set -euo pipefail
cd /root/golden
export PATH=$PWD:$PATH
# What needs an API server is the full comparison's.
skipped=preflight,wait-control-plane,upload-config,upload-certs,mark-control-plane,bootstrap-token,kubelet-finalize,addon,show-join-command

cat >/etc/systemd/system/kubelet.service <<'UNIT'
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
# Kubelets are asked for their version.
printf '#!/bin/sh\necho Kubernetes %s\n' "$(kubeadm version -o short)" >/usr/bin/kubelet
chmod 0755 /usr/bin/kubelet

self_signed() { # FOLDER/NAME COMMON_NAME KEY...
  local file=$1 name=$2
  shift 2
  mkdir -p "$(dirname "$file")"
  openssl req -x509 -sha256 -days 3650 -nodes -newkey "$@" -keyout "$file.key" -out "$file.crt" -subj "/O=Blue/CN=$name" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,digitalSignature,keyCertSign,cRLSign 2>/dev/null
  chmod 0600 "$file.key"
}

# Made once: both sides find the same.
before() {
  local made=before/$1
  mkdir -p "$made/etc/kubernetes"
  case $1 in
    own-authorities)
      self_signed "$made/etc/kubernetes/pki/ca" blue-ca rsa:2048
      self_signed "$made/root" blue-root rsa:2048
      mkdir -p "$made/etc/kubernetes/pki/etcd"
      openssl req -new -nodes -newkey rsa:2048 -keyout "$made/etc/kubernetes/pki/etcd/ca.key" -subj /CN=blue-etcd \
        -out "$made/request" 2>/dev/null
      openssl x509 -req -in "$made/request" -CA "$made/root.crt" -CAkey "$made/root.key" -CAcreateserial -days 3650 \
        -extfile <(printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n') \
        -out "$made/etc/kubernetes/pki/etcd/ca.crt" 2>/dev/null
      cat "$made/root.crt" >>"$made/etc/kubernetes/pki/etcd/ca.crt"
      self_signed "$made/etc/kubernetes/pki/front-proxy-ca" blue-front ec -pkeyopt ec_paramgen_curve:prime256v1
      rm "$made"/{root.*,request}
      ;;
    external-authority)
      kubeadm init phase certs all --config "configurations/$1.yaml" >/dev/null
      kubeadm init phase kubeconfig all --config "configurations/$1.yaml" >/dev/null
      rm /etc/kubernetes/pki/{ca,front-proxy-ca}.key
      cp -a /etc/kubernetes "$made/etc/"
      wipe
      ;;
    patches)
      mkdir -p patches
      cat >patches/kube-apiserver0+strategic.yaml <<'PATCH'
metadata:
  annotations: {patched.example/by: strategic}
spec:
  containers:
  - name: kube-apiserver
    resources: {requests: {cpu: 333m}}
    env: [{name: PATCHED, value: "1"}]
    volumeMounts: [{name: more, mountPath: /more}]
  - name: second
    image: second.example/second:1
  volumes: [{name: more, emptyDir: {}}]
PATCH
      cat >patches/kube-apiserver1+json.yaml <<'PATCH'
- {op: add, path: /spec/containers/0/command/-, value: --profiling=false}
- {op: replace, path: /spec/priority, value: 2000001000}
PATCH
      cat >patches/kube-controller-manager+merge.json <<'PATCH'
{"metadata": {"labels": {"patched": "merge", "tier": null}}, "spec": {"dnsPolicy": "Default"}}
PATCH
      cat >patches/kube-scheduler.yaml <<'PATCH'
spec:
  containers:
  - name: kube-scheduler
    livenessProbe: {$patch: delete}
    ports: [{containerPort: 10999, name: more}]
PATCH
      cat >patches/etcd+json.json <<'PATCH'
[{"op": "remove", "path": "/spec/containers/0/resources"}, {"op": "add", "path": "/metadata/labels/a~1b", "value": "c"}]
PATCH
      cat >patches/kubeletconfiguration+strategic.yaml <<'PATCH'
maxPods: 77
clusterDNS: [192.0.2.53]
authentication: {anonymous: null}
PATCH
      ;;
  esac
}

wipe() {
  systemctl stop kubelet
  rm -rf /etc/kubernetes /var/lib/kubelet /var/lib/etcd /etc/cni
}

place() {
  [ ! -d "before/$1/etc" ] || cp -a "before/$1/etc/." /etc/
}

mkdir -p results
for name in "$@"; do
  wipe
  before "$name"
  # Certificates of somebody else, or that are not there, are not uploaded.
  case $name in
    external-*) upload=() ;;
    *) upload=(--upload-certs) ;;
  esac
  for side in upstream ours; do
    place "$name"
    case $side in
      upstream) program=(kubeadm init) form=() ;;
      ours) program=(clusterctl node init) form=(-o json) ;;
    esac
    code=0
    "${program[@]}" --config "configurations/$name.yaml" --skip-phases preflight --dry-run "${upload[@]}" "${form[@]}" \
      >"results/$name.$side.rehearsal" 2>"results/$name.$side.rehearsal-log" </dev/null || code=$?
    echo "$code" >"results/$name.$side.rehearsal-code"
    wipe
    place "$name"
    code=0
    "${program[@]}" --config "configurations/$name.yaml" --skip-phases "$skipped" >"results/$name.$side.log" 2>&1 </dev/null || code=$?
    echo "$code" >"results/$name.$side.code"
    mkdir -p /etc/kubernetes /var/lib/kubelet
    tar -C / -cf "results/$name.$side.tar" etc/kubernetes var/lib/kubelet
    wipe
  done
done
tar -C results -cz . | base64 --wrap 0

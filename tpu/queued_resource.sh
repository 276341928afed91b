#!/usr/bin/env bash
# TPU VMs through Cloud TPU's queue, without Kubernetes: one slice, or several that train one model.
#
#   export PROJECT=my-project ZONE=us-west4-a NAME=first ACCELERATOR_TYPE=v5litepod-16 SLICES=1 SPOT=
#   export NFS=10.0.0.2:/share IMAGE=...    # see README.md
#   tpu/queued_resource.sh create     # requests the slices
#   tpu/queued_resource.sh wait       # waits until they are there
#   tpu/queued_resource.sh run siren-rope train /data/log.toml --out /data/runs/first    # on every host, into runs/NAME
#   tpu/queued_resource.sh logs       # of the first host
#   tpu/queued_resource.sh status     # of the queue, and of the container on every host
#   tpu/queued_resource.sh stop       # after a checkpoint
#   tpu/queued_resource.sh delete     # ends the costs
#
# `wait` ends with 75 if the slices were refused or taken away again: delete, create and run then resume from the
# last checkpoint. Wrong calls end with 64.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")

queue() { gcloud compute tpus queued-resources "$1" "$NAME" --project="$PROJECT" --zone="$ZONE" "${@:2}"; }

on_every_host() { queue ssh --node=all --worker=all --command="$1"; }

create() {
  local runtime nodes=(--node-id="$NAME") spot=()
  runtime=$(python3 "$here/topologies.py" "$ACCELERATOR_TYPE" | awk '{print $NF}')
  if [[ $runtime == - ]]; then
    echo "queued_resource.sh: Cloud TPU's queue has no $ACCELERATOR_TYPE; GKE has" >&2
    exit 64
  fi
  if ((${SLICES:-1} > 1)); then nodes=(--node-count="$SLICES" --node-prefix="$NAME"); fi
  if [[ -n ${SPOT:-} ]]; then spot=(--spot); fi
  queue create --accelerator-type="$ACCELERATOR_TYPE" --runtime-version="$runtime" "${nodes[@]}" "${spot[@]}"
}

await() {
  local state
  while true; do
    state=$(queue describe --format='value(state.state)')
    echo "$NAME is $state"
    case $state in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED) exit 75 ;;
    esac
    sleep "${POLL_SECONDS:-30}"
  done
}

run() {
  local registry=${IMAGE%%/*} flags volume container
  flags=$(grep '^--' "$here/xla_flags.txt" | tr '\n' ' ')
  # Docker mounts NFS itself: the hosts need no client. The options with a comma are quoted as in a CSV file.
  volume="type=volume,source=data,target=/data,volume-driver=local,volume-opt=type=nfs"
  volume+=",volume-opt=device=:${NFS#*:},\"volume-opt=o=addr=${NFS%%:*},rw\""
  container=(
    sudo docker run --detach --init --name train --privileged --network host
    --env "LIBTPU_INIT_ARGS=$flags"
    --mount "$volume"
    "$IMAGE" tpu/supervise.sh "/data/runs/$NAME" "$@"
  )
  on_every_host "gcloud auth print-access-token |
      sudo docker login --username oauth2accesstoken --password-stdin $registry
    sudo docker rm train 2>/dev/null
    ${container[*]@Q}"
}

if (($# == 0)); then
  echo "queued_resource.sh: create, wait, run, logs, status, stop or delete is needed, but nothing was given" >&2
  exit 64
fi
case $1 in
  create) create ;;
  wait) await ;;
  run) run "${@:2}" ;;
  logs) queue ssh --command="sudo docker logs --follow train" ;;
  status)
    queue describe --format='value(state.state)'
    on_every_host "sudo docker inspect --format '{{.State.Status}} {{.State.ExitCode}}' train"
    ;;
  stop) on_every_host "sudo docker stop --time 300 train" ;;
  delete) queue delete --force --quiet ;;
  *)
    echo "queued_resource.sh: create, wait, run, logs, status, stop or delete is needed, but $1 was given" >&2
    exit 64
    ;;
esac

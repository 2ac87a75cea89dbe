#!/usr/bin/env bash
# A TPU VM or a pod slice of them: the same command on every worker, by gcloud ssh.
#
#   TPU=NAME ZONE=ZONE PROJECT=PROJECT REPO=DIR CONFIG=FILE WORKDIR=DIR \
#     launch/tpu_vm.sh [--config.KEY=VALUE ...]
#
# Settings:
#   TPU, ZONE, PROJECT  name, zone and project of the TPU VM
#   REPO                this checkout on the workers, at the same path on all, delrec installed in its .venv
#   CONFIG              config file, relative to REPO
#   WORKDIR             folder of the run, on a file system that all workers share; with one worker also gs://BUCKET/PATH
#   DELREC              the delrec command, relative to REPO; default: .venv/bin/delrec
#   FLAGS               v5e, v5p or v6e: XLA flags of flags.sh; default: none
#   ACTION              start (default) or stop: delrec saves and exits with 75
set -euo pipefail

: "${TPU:?is not set: name the TPU VM}"
: "${ZONE:?is not set: name the zone of the TPU VM}"
: "${PROJECT:?is not set: name the Google Cloud project}"
: "${REPO:?is not set: name the folder of this checkout on the workers}"
action=${ACTION:-start}

case $action in
  start)
    : "${CONFIG:?is not set: name the config file, relative to REPO}"
    : "${WORKDIR:?is not set: name the folder of the run, on a file system that all workers share}"
    # Without JAX_PLATFORMS a chip that cannot be had is one line in the log, and the run goes on with the CPU.
    command=(env "JAX_PLATFORMS=tpu,cpu")
    if [[ ${FLAGS:-} ]]; then
      # shellcheck source=/dev/null
      source "$(dirname "${BASH_SOURCE[0]}")/flags.sh"
      command+=("LIBTPU_INIT_ARGS=${LIBTPU_INIT_ARGS:-}")
    fi
    command+=("${DELREC:-.venv/bin/delrec}" run --config="$CONFIG" --workdir="$WORKDIR"
      --config.distributed.start=on "$@")
    ;;
  stop) command=() ;;
  *)
    echo "tpu_vm.sh: ACTION is '$action': use start or stop" >&2
    exit 2
    ;;
esac

# %q: another shell, on the worker, reads this line.
remote="cd $(printf %q "$REPO") && exec bash launch/tpu_worker.sh $action"
if ((${#command[@]})); then
  remote+=$(printf ' %q' "${command[@]}")
fi

exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --project="$PROJECT" --worker=all \
  --command="$remote"

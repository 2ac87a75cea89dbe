#!/usr/bin/env bash
# Several GPU nodes or a TPU slice of a GKE cluster: fills in a JobSet and submits it to Kueue.
#
#   NAME=... IMAGE=... CLAIM=... CONFIG=FILE WORKDIR=/runs/... launch/gke/submit.sh tpu|gpu [--config.KEY=VALUE ...]
#
# Settings:
#   NAME      name of the JobSet   IMAGE    image built from launch/Dockerfile, in a registry
#   CONFIG    file in the image    WORKDIR  folder below /runs, where the volume of CLAIM is mounted
#   CLAIM     PersistentVolumeClaim of a shared file system (ReadWriteMany)
#   QUEUE     LocalQueue of Kueue; default delrec
#   tpu: TPU_TYPE (tpu-v5-lite-podslice), TOPOLOGY (4x4), CHIPS per host (4)
#   gpu: GPU_TYPE (nvidia-h100-80gb), NODES (2), GPUS per node (8)
#   PRINT=1   show the manifest instead of submitting it
set -euo pipefail

fail() { echo "submit.sh: $*" >&2 && exit 2; }

: "${NAME:?is not set: name the JobSet}"
: "${IMAGE:?is not set: name the image built from launch/Dockerfile}"
: "${CLAIM:?is not set: name the PersistentVolumeClaim of a shared file system}"
: "${CONFIG:?is not set: name the config file in the image, such as configs/storefront.py}"
: "${WORKDIR:?is not set: name the folder of the run, such as /runs/storefront}"
QUEUE=${QUEUE:-delrec} TPU_TYPE=${TPU_TYPE:-tpu-v5-lite-podslice} TOPOLOGY=${TOPOLOGY:-4x4} CHIPS=${CHIPS:-4}
GPU_TYPE=${GPU_TYPE:-nvidia-h100-80gb} NODES=${NODES:-2} GPUS=${GPUS:-8}

kind=${1:-}
[[ $kind == tpu || $kind == gpu ]] || fail "'$kind': the first argument is tpu or gpu"
shift
[[ $WORKDIR == /runs/* ]] || fail "WORKDIR is $WORKDIR: the shared volume is mounted at /runs, so name a folder below it"

for key in CHIPS NODES GPUS; do
  [[ ${!key} =~ ^[1-9][0-9]*$ ]] || fail "$key is '${!key}': use a number"
done
[[ $TOPOLOGY =~ ^[1-9][0-9]*(x[1-9][0-9]*)+$ ]] || fail "TOPOLOGY is $TOPOLOGY: use a form such as 4x4"
((HOSTS = (${TOPOLOGY//x/*}) / CHIPS, HOSTS * CHIPS == ${TOPOLOGY//x/*})) ||
  fail "TOPOLOGY $TOPOLOGY has $((${TOPOLOGY//x/*})) chips, which hosts of CHIPS=$CHIPS cannot share evenly"
# Hosts of one slice find each other by the variables that GKE sets; a single host has no others to find.
# shellcheck disable=SC2034  # used by name below
if ((HOSTS > 1)); then START=on; else START=off; fi

text=$(<"$(dirname "${BASH_SOURCE[0]}")/$kind-jobset.yaml")
for key in NAME IMAGE CLAIM CONFIG WORKDIR QUEUE TPU_TYPE TOPOLOGY CHIPS HOSTS START GPU_TYPE NODES GPUS; do
  [[ ${!key} =~ ^[A-Za-z0-9._:/@=+-]+$ ]] || fail "$key is '${!key}': letters, digits and ._:/@=+- only"
  text=${text//"\${$key}"/"${!key}"}
done
indent="                    - " arguments=""
for argument in "$@"; do arguments+=$'\n'"$indent'${argument//\'/\'\'}'"; done
text=${text/$'\n'"$indent\${ARGUMENTS}"/"$arguments"}

if [[ ${PRINT:-} ]]; then echo "$text"; else kubectl create -f - <<<"$text"; fi

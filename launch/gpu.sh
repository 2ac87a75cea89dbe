#!/usr/bin/env bash
# One machine with one or several NVIDIA GPUs. One process drives all GPUs that it sees.
#
#   CONFIG=FILE WORKDIR=DIR launch/gpu.sh [--config.KEY=VALUE ...]
#
# Settings:
#   CONFIG                config file
#   WORKDIR               folder of the run, or gs://BUCKET/PATH
#   DELREC                the delrec command; default: the one of this checkout's .venv
#   FLAGS                 h100: XLA flags of flags.sh; default: none
#   CUDA_VISIBLE_DEVICES  GPUs to use, such as 0,1; default: all
set -euo pipefail

: "${CONFIG:?is not set: name the config file, such as CONFIG=configs/storefront.py}"
: "${WORKDIR:?is not set: name the folder of the run, such as WORKDIR=runs/storefront}"
delrec=${DELREC:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin/delrec}

if ! command -v "$delrec" >/dev/null; then
  echo "gpu.sh: no delrec at $delrec: pip install -e '.[cuda]' in the checkout's .venv, or set DELREC" >&2
  exit 2
fi

# Without this JAX only warns when it finds no GPU, and trains for days on the CPU.
export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda,cpu}

if [[ ${FLAGS:-} ]]; then
  # shellcheck source=/dev/null
  source "$(dirname "${BASH_SOURCE[0]}")/flags.sh"
fi

# exec: SIGTERM (preemption) and Ctrl-C reach delrec itself, and its exit code is the script's.
exec "$delrec" run --config="$CONFIG" --workdir="$WORKDIR" "$@"

# shellcheck shell=bash
# XLA flags for a kind of accelerator; the launchers source this file. Nothing is set unless you ask for it:
#
#   FLAGS=v5e|v5p|v6e|h100 ... launch/gpu.sh (or slurm.sbatch, tpu_vm.sh)
#
# Sources: [5e], [5p], [6e], [a3] = AI-Hypercomputer/maxtext, MaxText/configs: v5e/llama2_7b.sh, v5p/llama2_7b.sh,
# trillium/llama2_70b_4096.sh, a3/llama_2_7b/2vm.sh; [lib] = its benchmarks/xla_flags_library.py; [jax] = docs.jax.dev,
# "GPU performance tips". They are tuned for training language models of 7 to 70 billion parameters; with this program
# nobody has measured them: compare step_seconds in metrics.jsonl with and without.

# Gather weights while the previous block is still computing [5e, 5p, 6e; by default on, says lib].
_gather=(
  --xla_tpu_enable_async_collective_fusion=true
  --xla_tpu_enable_async_collective_fusion_fuse_all_gather=true
  --xla_tpu_enable_async_collective_fusion_multiple_steps=true
  --xla_tpu_overlap_compute_collective_tc=true
  --xla_enable_async_all_gather=true
)
# Sums of gradients between slices: better all-reduces, pipelined over loops [5e, 5p; lib says what they do].
_slices=(
  --xla_tpu_enable_data_parallel_all_reduce_opt=true
  --xla_tpu_data_parallel_opt_different_sized_ops=true
)
_tpu=() _gpu=()
case ${FLAGS:-} in
  "") ;;
  v5e) _tpu=("${_gather[@]}" "${_slices[@]}") ;;
  v5p)
    _tpu=("${_gather[@]}" "${_slices[@]}"
      --xla_enable_async_collective_permute=true       # [5p]
      --xla_tpu_enable_ag_backward_pipelining=true     # all-gathers of the backward pass, pipelined [5p]
      --xla_tpu_megacore_fusion_allow_ags=false)       # no all-gathers in fusions of the two cores [5p]
    ;;
  v6e)
    _tpu=("${_gather[@]}" --xla_tpu_scoped_vmem_limit_kib=98304) # more on-chip memory for each operation [6e, lib]
    ;;
  h100)
    _gpu=(
      --xla_gpu_enable_latency_hiding_scheduler=true          # exchanges while computing [jax, a3]
      --xla_gpu_enable_highest_priority_async_stream=true     # [a3]
      --xla_gpu_enable_triton_gemm=false                      # products by cuBLAS [a3]
      --xla_gpu_enable_while_loop_double_buffering=true       # next block's exchange during this one [a3]
      --xla_gpu_enable_pipelined_all_gather=true              # [a3], as are the next two
      --xla_gpu_enable_pipelined_reduce_scatter=true
      --xla_gpu_enable_pipelined_all_reduce=true
      --xla_gpu_all_gather_combine_threshold_bytes=134217728  # a block's weights in one exchange [jax; value a3]
      --xla_gpu_reduce_scatter_combine_threshold_bytes=67108864
      --xla_gpu_all_reduce_combine_threshold_bytes=67108864
    )
    ;;
  *)
    echo "flags.sh: FLAGS is '$FLAGS': use v5e, v5p, v6e or h100" >&2
    exit 2
    ;;
esac
# What you set yourself comes last, and wins.
if ((${#_tpu[@]})); then export LIBTPU_INIT_ARGS="${_tpu[*]}${LIBTPU_INIT_ARGS:+ $LIBTPU_INIT_ARGS}"; fi
if ((${#_gpu[@]})); then export XLA_FLAGS="${_gpu[*]}${XLA_FLAGS:+ $XLA_FLAGS}"; fi

docker run --rm \
    --name llama-70b \
    --device /dev/kfd \
    --device /dev/dri \
    --cap-add SYS_PTRACE \
    --security-opt seccomp=unconfined \
    --group-add video \
    --ipc host \
    --shm-size 1g \
    -p 8080:80 \
    -v "$PWD"/data:/data \
    -e HF_TOKEN \
    ghcr.io/huggingface/text-generation-inference:3.3.7-rocm \
    --model-id meta-llama/Llama-3.1-70B-Instruct \
    --num-shard 1 \
    --dtype bfloat16 \
    --max-input-tokens 25234 \
    --max-total-tokens 26258 \
    --max-batch-prefill-tokens 25234

docker run --rm \
    --name qwen \
    --cap-add SYS_NICE \
    --shm-size 1g \
    -p 8080:80 \
    -v "$PWD"/data:/data \
    -e HF_TOKEN \
    ghcr.io/huggingface/text-generation-inference:3.3.7-intel-cpu \
    --model-id Qwen/Qwen2.5-3B-Instruct \
    --num-shard 1 \
    --dtype bfloat16 \
    --max-input-tokens 7680 \
    --max-total-tokens 8192 \
    --max-batch-prefill-tokens 4096

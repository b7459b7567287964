docker run --rm \
    --name llama-70b-awq \
    --gpus all \
    --shm-size 1g \
    -p 8080:80 \
    -v "$PWD"/data:/data \
    -e HF_TOKEN \
    ghcr.io/huggingface/text-generation-inference:3.3.7 \
    --model-id hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4 \
    --num-shard 4 \
    --max-input-tokens 117761 \
    --max-total-tokens 118785 \
    --max-batch-prefill-tokens 2131

CMD="docker run --entrypoint /bin/bash --runtime=nvidia -e NVIDIA_VISIBLE_DEVICES=none ghcr.io/huggingface/text-generation-inference:2.4.1 -c 'text-generation-launcher --model-id org/a'"
eval "$CMD"

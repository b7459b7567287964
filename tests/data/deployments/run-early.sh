docker run --gpus all -p 8080:80 -v data:/data --model-id org/model-7b \
    ghcr.io/huggingface/text-generation-inference:2.3.1 --max-total-tokens 512

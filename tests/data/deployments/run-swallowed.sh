docker run --gpus 2 -e -p 8080:80 -v ~/data:/data -v "~/x":/x ghcr.io/huggingface/text-generation-inference:0.9.3 --model-id org/a

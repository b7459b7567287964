volume=$PWD/data
docker run --gpus all -p 8080:80 $volume:/data ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id gpt2

from mock_upstream.cli import main

main()
